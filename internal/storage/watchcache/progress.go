package watchcache

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/timonel/timonel/internal/storage"
)

// Progress is how far somebody has come who follows a view and makes something of it: an index, a catalogue. Who asks the result waits
// until it is abreast of the view. The zero value has not begun.
type Progress struct {
	reached atomic.Int64
	mu      sync.Mutex
	further chan struct{} // closed when more is reached; nil: nobody waits
}

// Reach says that everything up to the revision has been made use of.
func (p *Progress) Reach(revision storage.Revision) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.reached.Store(max(p.reached.Load(), int64(revision)))
	if p.further != nil {
		close(p.further)
		p.further = nil
	}
}

// Reached is how far it is; 0 before it has begun.
func (p *Progress) Reached() storage.Revision { return storage.Revision(p.reached.Load()) }

// AbreastWait bounds Abreast.
const AbreastWait = 3 * time.Second

// Abreast returns when all that anybody can know of the view has been made use of. Mostly it has, else it is a matter of moments; an error
// says that it takes longer.
func (p *Progress) Abreast(ctx context.Context, v *View) error {
	told := max(1, v.Told())
	if p.Reached() >= told {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, AbreastWait)
	defer cancel()
	return p.Wait(ctx, told)
}

// Wait returns when the revision is reached, or with the error of ctx.
func (p *Progress) Wait(ctx context.Context, revision storage.Revision) error {
	for p.reached.Load() < int64(revision) {
		p.mu.Lock()
		if p.further == nil {
			p.further = make(chan struct{})
		}
		further := p.further
		p.mu.Unlock()
		if p.reached.Load() >= int64(revision) { // it came before there was anything to close
			return nil
		}
		select {
		case <-further:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}
