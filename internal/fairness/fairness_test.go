package fairness

import (
	"testing"

	"github.com/timonel/timonel/internal/user"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

func TestSeats(t *testing.T) {
	p := New(Limits{Reading: 2, Writing: 1})
	anyone, master := &user.Info{Name: "u"}, &user.Info{Name: "m", Groups: []string{user.SystemPrivileged}}
	enter := func(verb string, long bool, u *user.Info, want bool) (leave func()) {
		t.Helper()
		leave, err := p.Enter(verb, long, u)
		if (err == nil) != want {
			t.Fatalf("%s of %s: %v", verb, u.Name, err)
		}
		if err != nil {
			if s, ok := err.(apierrors.APIStatus); !ok || s.Status().Code != 429 || s.Status().Details.RetryAfterSeconds != 1 { //nolint:errorlint // as it is returned
				t.Errorf("refused with %#v", err)
			}
		}
		return leave
	}
	get, list := enter("get", false, anyone, true), enter("list", false, anyone, true)
	enter("get", false, anyone, false)
	enter("get", false, master, true)()
	enter("watch", true, anyone, true)() // holds no seat
	write := enter("create", false, anyone, true)
	enter("patch", false, anyone, false)
	get()
	enter("list", false, anyone, true)()
	list()
	write()
	enter("deletecollection", false, anyone, true)()
}

func TestDefaultLimits(t *testing.T) {
	p := New(Limits{})
	if cap(p.reading) != 400 || cap(p.writing) != 200 {
		t.Errorf("%d and %d seats", cap(p.reading), cap(p.writing))
	}
}
