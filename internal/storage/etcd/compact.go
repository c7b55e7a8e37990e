package etcd

import (
	"context"
	"log/slog"
	"strconv"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/timonel/timonel/internal/storage"
)

// compactKey is where servers that share an etcd, stock ones too, agree on who
// compacts: the key's version counts the compactions, its value is the revision
// that was compacted. It lies outside every server's prefix.
const compactKey = "compact_rev_key"

// compactor drops old history: every interval, what is older than the
// interval before. So 1–2 intervals of history stay.
//
// Each server remembers the key's version and the store's revision as of its last round.
// In the next round the one whose remembered version still holds writes the
// key and compacts at the remembered revision; the others learn the new version.
// So of any number of servers exactly one compacts in a round. A store in which
// nothing happened since is left alone.
type compactor struct {
	backend backend
	every   time.Duration // 0: never

	version  int64            // of compactKey, as of the last round
	revision storage.Revision // of the store, as of the last round; 0: before the first
}

func (c *compactor) run(ctx context.Context) {
	if c.every <= 0 {
		return
	}
	ticker := time.NewTicker(c.every)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			if err := c.round(ctx); err != nil && ctx.Err() == nil {
				slog.Warn("etcd: compaction failed; next try in a round", "interval", c.every, "err", err)
			}
		}
	}
}

func (c *compactor) round(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, max(c.every/2, time.Second))
	defer cancel()

	now, err := c.backend.now(ctx)
	if err != nil || now == c.revision {
		return err
	}
	resp, err := c.backend.txn(ctx, &pb.TxnRequest{
		Compare: []*pb.Compare{{
			Key: []byte(compactKey), Target: pb.Compare_VERSION, Result: pb.Compare_EQUAL,
			TargetUnion: &pb.Compare_Version{Version: c.version},
		}},
		Success: []*pb.RequestOp{{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{
			Key: []byte(compactKey), Value: strconv.AppendInt(nil, int64(c.revision), 10),
		}}}},
		Failure: []*pb.RequestOp{{Request: &pb.RequestOp_RequestRange{RequestRange: &pb.RangeRequest{Key: []byte(compactKey)}}}},
	})
	if err != nil {
		return err
	}
	old := c.revision
	c.revision = storage.Revision(resp.Header.Revision)
	if !resp.Succeeded {
		c.version = 0
		if kvs := resp.Responses[0].GetResponseRange().GetKvs(); len(kvs) > 0 {
			c.version = kvs[0].Version
		}
		return nil
	}
	c.version++
	if old == 0 {
		return nil // the first round of the first server: nothing is old yet
	}
	return c.backend.compact(ctx, old)
}
