package object

// Newest returns the object that has "true" in one of the annotations: the newest, of equally old
// ones the first by name; nil if none has. It is how one default class is chosen of several.
func Newest[T interface {
	Object
	comparable
}](all []T, annotations ...string) T {
	var chosen, none T
	for _, o := range all {
		marked := false
		for _, a := range annotations {
			marked = marked || o.GetAnnotations()[a] == "true"
		}
		if !marked {
			continue
		}
		if chosen != none {
			made, best := o.GetCreationTimestamp(), chosen.GetCreationTimestamp()
			if made.Before(&best) || made.Equal(&best) && o.GetName() > chosen.GetName() {
				continue
			}
		}
		chosen = o
	}
	return chosen
}
