package etcd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/client/pkg/v3/transport"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap/zapcore"
	"google.golang.org/grpc"

	"github.com/timonel/timonel/internal/storage"
)

// Config says how to reach an external etcd cluster.
type Config struct {
	Endpoints []string // of its members: "https://host:2379", "http://…", "unix:///path"

	CertFile, KeyFile string // our client certificate; none if empty
	CAFile            string // who vouches for the servers; the system's roots if empty

	// Compaction and LeaseReuse are as in EmbeddedConfig.
	Compaction, LeaseReuse time.Duration

	// Log receives the client's warnings and errors. nil: slog.Default().
	Log *slog.Logger
}

const (
	dialTimeout      = 20 * time.Second
	keepaliveTime    = 30 * time.Second
	keepaliveTimeout = 10 * time.Second
)

// Dial connects to an external cluster of etcd 3.5.13 or later (older ones
// answer Progress out of order). It fails if no member answers within 20 s.
// Later on lost connections come back by themselves, on whichever member is well.
func Dial(ctx context.Context, cfg Config) (*Store, error) {
	c, err := dial(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("connect to etcd at %v: %w", cfg.Endpoints, err)
	}
	compaction := cfg.Compaction
	if compaction == 0 {
		compaction = DefaultCompaction
	}
	return newStore(c, compaction, cfg.LeaseReuse), nil
}

// external is a backend of a cluster elsewhere. Its reads are linearizable as
// etcd makes them: the member asks the leader, and that a quorum, how far the log is.
type external struct {
	client *clientv3.Client
	kv     pb.KVClient
	lease  pb.LeaseClient
}

func dial(ctx context.Context, cfg Config) (*external, error) {
	if len(cfg.Endpoints) == 0 {
		return nil, errors.New("no endpoints")
	}
	config := clientv3.Config{
		Endpoints:            cfg.Endpoints,
		DialTimeout:          dialTimeout,
		DialKeepAliveTime:    keepaliveTime,
		DialKeepAliveTimeout: keepaliveTimeout,
		PermitWithoutStream:  true,
		Logger:               logger(cfg.Log, zapcore.ErrorLevel), // it warns of every retry
		Context:              context.WithoutCancel(ctx),
	}
	tls := transport.TLSInfo{CertFile: cfg.CertFile, KeyFile: cfg.KeyFile, TrustedCAFile: cfg.CAFile}
	if cfg.CertFile != "" || cfg.KeyFile != "" || cfg.CAFile != "" {
		var err error
		if config.TLS, err = tls.ClientConfig(); err != nil {
			return nil, fmt.Errorf("client TLS: %w", err)
		}
	}
	client, err := clientv3.New(config)
	if err != nil {
		return nil, err
	}
	e := &external{client: client, kv: clientv3.RetryKVClient(client), lease: clientv3.RetryLeaseClient(client)}
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	if _, err := e.now(ctx); err != nil {
		client.Close()
		return nil, err
	}
	return e, nil
}

// callOptions lift gRPC's limit of 4 MB on an answer; a page of a list may well be longer.
var callOptions = []grpc.CallOption{grpc.MaxCallRecvMsgSize(math.MaxInt32)}

// closed fails after Close; the client itself would look for a connection for some seconds.
func (e *external) closed() error {
	if e.client.Ctx().Err() != nil {
		return errors.New("the store is closed")
	}
	return nil
}

func (e *external) read(ctx context.Context, r readRequest) (readResult, error) {
	if err := e.closed(); err != nil {
		return readResult{}, err
	}
	resp, err := e.kv.Range(ctx, &pb.RangeRequest{Key: r.key, RangeEnd: r.end, Revision: int64(r.at), Limit: r.limit}, callOptions...)
	if err != nil {
		return readResult{}, readError(err)
	}
	return readResult{kvs: resp.Kvs, revision: storage.Revision(resp.Header.Revision), count: resp.Count}, nil
}

func (e *external) txn(ctx context.Context, r *pb.TxnRequest) (*pb.TxnResponse, error) {
	if err := e.closed(); err != nil {
		return nil, err
	}
	resp, err := e.kv.Txn(ctx, r, callOptions...)
	return resp, writeError(err)
}

func (e *external) grant(ctx context.Context, ttlSeconds int64) (int64, error) {
	resp, err := e.lease.LeaseGrant(ctx, &pb.LeaseGrantRequest{TTL: ttlSeconds})
	if err != nil {
		return 0, writeError(err)
	}
	return resp.ID, nil
}

func (e *external) renew(ctx context.Context, leaseID int64) error {
	_, err := e.client.KeepAliveOnce(ctx, clientv3.LeaseID(leaseID))
	return readError(err) // a second time does no harm
}

func (e *external) revoke(ctx context.Context, leaseID int64) error {
	_, err := e.lease.LeaseRevoke(ctx, &pb.LeaseRevokeRequest{ID: leaseID})
	return writeError(err)
}

func (e *external) watch(ctx context.Context, key, end []byte, after storage.Revision, deliver func(storage.Batch) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	// With a leader required, a member cut off from the others ends its watches
	// instead of being silent. All watches share this metadata and so one gRPC stream,
	// the one that progress asks.
	responses := e.client.Watch(clientv3.WithRequireLeader(ctx), string(key),
		clientv3.WithRange(string(end)), clientv3.WithRev(int64(after)+1))
	var events []*mvccpb.Event
	for resp := range responses {
		if err := resp.Err(); err != nil {
			if err := ctx.Err(); err != nil {
				return err
			}
			return readError(err)
		}
		if resp.Created {
			continue
		}
		events = events[:0]
		for _, e := range resp.Events {
			events = append(events, (*mvccpb.Event)(e))
		}
		b := batch(events)
		if resp.IsProgressNotify() {
			b.Revision = storage.Revision(resp.Header.Revision)
		}
		if err := deliver(b); err != nil {
			return err
		}
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	return errors.New("the watch stream ended")
}

func (e *external) progress(ctx context.Context) error {
	return readError(e.client.RequestProgress(clientv3.WithRequireLeader(ctx)))
}

// now reads, linearizably, a key that does not matter: every answer bears the revision.
func (e *external) now(ctx context.Context) (storage.Revision, error) {
	if err := e.closed(); err != nil {
		return 0, err
	}
	resp, err := e.kv.Range(ctx, &pb.RangeRequest{Key: []byte(compactKey), CountOnly: true})
	if err != nil {
		return 0, readError(err)
	}
	return storage.Revision(resp.Header.Revision), nil
}

func (e *external) size(ctx context.Context) (int64, error) {
	status, err := e.client.Status(ctx, e.client.Endpoints()[0])
	if err != nil {
		return 0, readError(err)
	}
	return status.DbSize, nil
}

func (e *external) compact(ctx context.Context, at storage.Revision) error {
	_, err := e.kv.Compact(ctx, &pb.CompactionRequest{Revision: int64(at)})
	return writeError(err)
}

func (e *external) close() error {
	if err := e.client.Close(); err != nil && !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}
