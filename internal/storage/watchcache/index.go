package watchcache

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// An index on a label is made when lists have asked for the label a few times, and
// goes when others need its place: most labels are never selected by.
const (
	labelIndexAfter = 3 // lists that could have used the index
	labelIndexes    = 8 // of a view at most
	labelIndexIdle  = 10 * time.Minute
	labelsCounted   = 64 // labels of which the uses are counted
)

// labelIndexFrom is how many objects make a label worth an index. A variable for the tests.
var labelIndexFrom = 1000

// labelUsage counts the lists that select by a label.
type labelUsage struct {
	sync.Mutex
	uses     map[string]int
	used     map[string]*atomic.Int64 // when an index was last used, in Unix seconds
	building bool
}

// labelIndex returns the index on the label if there is one, and else sees to it that there soon will be.
func (s Snapshot) labelIndex(label string) (tree[posting], bool) {
	for i := range s.state.labels {
		if s.state.labels[i].label == label {
			s.view.usage.touch(label)
			return s.state.labels[i].postings, true
		}
	}
	if s.state.objects.len() >= labelIndexFrom && s.view.usage.count(label) {
		go s.view.buildIndex(label)
	}
	return tree[posting]{}, false
}

func (u *labelUsage) touch(label string) {
	u.Lock()
	at := u.used[label]
	u.Unlock()
	if at != nil {
		at.Store(time.Now().Unix())
	}
}

// count notes a use and says whether to build an index now.
func (u *labelUsage) count(label string) bool {
	u.Lock()
	defer u.Unlock()
	if u.building {
		return false
	}
	if u.uses == nil || len(u.uses) >= labelsCounted {
		u.uses = make(map[string]int)
	}
	u.uses[label]++
	if u.uses[label] < labelIndexAfter {
		return false
	}
	delete(u.uses, label)
	if len(u.used) >= labelIndexes && u.idle() == "" {
		return false
	}
	u.building = true
	return true
}

// idle returns a label whose index has not been used for long.
func (u *labelUsage) idle() string {
	for label, at := range u.used {
		if time.Since(time.Unix(at.Load(), 0)) > labelIndexIdle {
			return label
		}
	}
	return ""
}

// buildIndex makes the index of a state, beside the feed, and then, in its way, brings it up to the
// newest state.
func (v *View) buildIndex(label string) {
	old := v.current.Load()
	v.addIndex(old, labelIndex{label, indexOf(old.objects, 0, labelValue(label))})
}

func labelValue(label string) func(*Version) (string, bool) {
	return func(v *Version) (string, bool) { return v.Labels.Lookup(label) }
}

// addIndex adds to the newest state an index that was made of an old one.
func (v *View) addIndex(old *state, index labelIndex) {
	v.mu.Lock()
	defer v.mu.Unlock()
	u := &v.usage
	u.Lock()
	defer u.Unlock()
	u.building = false

	s := v.current.Load()
	dir := v.history.dir.Load()
	if old.next < dir.first || old.revision < dir.floor {
		return // too much has happened; another list will ask again
	}
	v.mu.epoch++
	e := s.begin(&v.collection, v.mu.epoch)
	for number := old.next; number < s.next; number++ {
		r := dir.at(number)
		e.reindex(&index.postings, r.prev, r.next, labelValue(index.label))
	}
	if len(u.used) >= labelIndexes {
		idle := u.idle()
		delete(u.used, idle)
		e.labels = slices.DeleteFunc(e.labels, func(i labelIndex) bool { return i.label == idle })
	}
	if u.used == nil {
		u.used = make(map[string]*atomic.Int64)
	}
	u.used[index.label] = new(atomic.Int64)
	u.used[index.label].Store(time.Now().Unix())
	e.labels = append(e.labels, index)
	v.current.Store(&e.state)
}
