package engine

import (
	"context"
	"testing"

	"github.com/timonel/timonel/internal/storage"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TestUnknownOutcomeIsNotTriedAgain: a commit that broke off may have been made. A second try would meet the first one's work: a
// compare-and-swap would be refused although it happened, a deletion would find nothing.
func TestUnknownOutcomeIsNotTriedAgain(t *testing.T) {
	check := func(what string, write func(w *world, version string) error) {
		t.Helper()
		run(t, func(w *world) {
			obj := w.create(w.pods, `{"metadata":{"name":"x"}}`)
			tries := 0
			w.store.before = func(txn storage.Txn) error {
				if tries++; tries == 1 { // made, but nobody is told
					if _, err := w.store.Memory.Commit(context.Background(), txn); err != nil {
						return err
					}
				}
				return storage.ErrUnknown
			}
			w.expect(what, write(w, obj.GetResourceVersion()), metav1.StatusReasonServerTimeout)
			if tries != 1 {
				t.Errorf("%s was committed %d times", what, tries)
			}
		})
	}
	now := int64(0)
	check("update", func(w *world, version string) error {
		_, err := w.update(w.call(w.pods, "x"), map[string]any{"metadata": map[string]any{"name": "x", "resourceVersion": version, "labels": map[string]any{"a": "b"}}})
		return err
	})
	check("patch", func(w *world, version string) error {
		_, err := w.merge(w.call(w.pods, "x"), `{"metadata":{"labels":{"a":"b"}}}`)
		return err
	})
	check("delete", func(w *world, version string) error {
		_, err := w.delete(w.call(w.pods, "x"), metav1.DeleteOptions{GracePeriodSeconds: &now})
		return err
	})
	check("graceful delete", func(w *world, version string) error {
		_, err := w.delete(w.call(w.pods, "x"), metav1.DeleteOptions{})
		return err
	})
	check("create", func(w *world, version string) error {
		_, err := w.tryCreate(w.pods, `{"metadata":{"name":"y"}}`)
		return err
	})
}
