package check

import "k8s.io/apimachinery/pkg/util/validation/field"

// Choice goes through the members of a struct of which one is to be set, in a fixed order: the first that is set is checked, any further one
// is too many.
type Choice struct {
	At   *field.Path
	Of   string // what is chosen: "volume type"
	Errs field.ErrorList
	// Misspelt are members that answers about one too many call by another name.
	Misspelt map[string]string

	made bool
}

// See looks at a member; check says what is wrong with it if it is the first.
func (c *Choice) See(set bool, name string, check func(at *field.Path) field.ErrorList) {
	switch {
	case !set:
	case !c.made:
		c.made = true
		c.Errs = append(c.Errs, check(c.At.Child(name))...)
	default:
		if odd := c.Misspelt[name]; odd != "" {
			name = odd
		}
		c.Errs = append(c.Errs, field.Forbidden(c.At.Child(name), "may not specify more than 1 "+c.Of))
	}
}

// Required is what is wrong, with a choice that was not made.
func (c *Choice) Required() field.ErrorList {
	if !c.made {
		c.Errs = append(c.Errs, field.Required(c.At, "must specify a "+c.Of))
	}
	return c.Errs
}
