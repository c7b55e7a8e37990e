package storagetest

import (
	"testing"

	"github.com/timonel/timonel/internal/storage"
)

func TestMemoryKeepsThePromises(t *testing.T) {
	Run(t, func(*testing.T) storage.Store { return NewMemory() }, Options{
		Compact:  func(_ *testing.T, s storage.Store, at storage.Revision) { s.(*Memory).Compact(at) },
		FakeTime: true,
	})
}
