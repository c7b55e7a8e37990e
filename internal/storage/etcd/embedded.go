package etcd

import (
	"context"
	"errors"
	"expvar"
	"fmt"
	"log/slog"
	"math"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	bolt "go.etcd.io/bbolt"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/client/pkg/v3/types"
	"go.etcd.io/etcd/pkg/v3/traceutil"
	"go.etcd.io/etcd/server/v3/config"
	"go.etcd.io/etcd/server/v3/etcdserver"
	servererrors "go.etcd.io/etcd/server/v3/etcdserver/errors"
	"go.etcd.io/etcd/server/v3/features"
	"go.etcd.io/etcd/server/v3/lease"
	"go.etcd.io/etcd/server/v3/storage/mvcc"
	"go.etcd.io/etcd/server/v3/storage/wal"
	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"go.uber.org/zap/zapcore"

	"github.com/timonel/timonel/internal/storage"
)

// EmbeddedConfig says how to run the server inside this process.
type EmbeddedConfig struct {
	// Dir is etcd's data directory, created if missing. It has etcd's own layout:
	// etcd and etcdutl of the same version can open it.
	Dir string

	// Listen are addresses on which etcd clients may connect besides: "unix:///path" or
	// "http://host:port". None by default: the server then has no open port.
	Listen []string

	// Compaction is the interval of compaction; 1–2 of them of history stay. 0: DefaultCompaction,
	// negative: never.
	Compaction time.Duration

	// LeaseReuse is how long a lease is handed out for objects of the same TTL. 0: DefaultLeaseReuse.
	LeaseReuse time.Duration

	// QuotaBytes bounds the data in use, history included. 0: DefaultQuotaBytes.
	QuotaBytes int64

	// MaxRequestBytes bounds a transaction. 0: DefaultMaxRequestBytes.
	MaxRequestBytes int

	// NoFsync acknowledges writes that are not on disk. Only for data that may be lost, as in tests.
	NoFsync bool

	// Log receives etcd's warnings and errors. nil: slog.Default().
	Log *slog.Logger
}

const (
	DefaultCompaction      = 5 * time.Minute
	DefaultQuotaBytes      = 8 << 30 // etcd's own advice for a maximum
	DefaultMaxRequestBytes = 3 << 19 // 1.5 MiB, etcd's default and so what a stock cluster takes
)

const (
	memberName = "timonel"

	// peerURL names the only member; nobody listens there.
	peerURL = "http://localhost:2380"

	// A single member needs no heartbeats, so the clock of its raft may be slow:
	// an election is not awaited but started (see lead). Leases are checked by a clock of their own.
	// The least TTL of a lease is 1.5 × tick × electionTicks, in whole seconds.
	tick          = 500 * time.Millisecond
	electionTicks = 2

	// backendInterval is how often applied writes go from memory to etcd's B-tree
	// file. They are in the fsynced log before they are acknowledged, so this is
	// not about durability: fewer, larger batches cost less.
	backendInterval = time.Second

	// snapshotEntries is how many log entries the next start replays at most, about; it reads
	// the log from the beginning of a segment, so those are smaller than etcd's 64 MB.
	//
	// keptEntries stay in memory, for followers, of which there are none; but also because raft
	// panics if it is to campaign while it lacks entries that it does not know to be
	// applied. That cannot be when all that a start replays is kept: snapshotEntries, and what
	// clients had in flight.
	snapshotEntries = 500
	segmentBytes    = 16 << 20
	keptEntries     = 1024

	// defragAtStart is how much free space, in MiB, makes the next start shrink the file.
	defragAtStart = 256

	// startTimeout bounds the wait for a server that replays its log.
	startTimeout = 5 * time.Minute
)

// Embedded starts an etcd server in this process and returns the store on it
// once it can be written to. It fails with ErrLocked if the data directory is in use.
func Embedded(ctx context.Context, cfg EmbeddedConfig) (*Store, error) {
	b, err := startEmbedded(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("start embedded etcd in %s: %w", cfg.Dir, err)
	}
	compaction := cfg.Compaction
	if compaction == 0 {
		compaction = DefaultCompaction
	}
	return newStore(b, compaction, cfg.LeaseReuse), nil
}

// embedded is a backend of one etcd member in this process.
//
// Reads go straight to etcd's multi-version store, without asking raft first.
// That is linearizable here and only here: an etcd with one member
// acknowledges a transaction after applying it to that store, nobody else can accept
// writes, and a member applies an entry only after it is in its fsynced log.
//
// Now is cheaper still: as long as everybody gets at the data through this
// Store, the newest revision that matters is the newest that it told anyone, by an
// answer or a watch. With other clients listening it is the store's own.
type embedded struct {
	server  *etcdserver.EtcdServer
	kv      mvcc.WatchableKV
	quota   int64
	lock    *os.File
	clients *clientServer // nil: none
	newest  atomic.Int64  // revision told
	pages   *pages

	campaigned bool // lead had to start the election, and could

	mu struct {
		sync.Mutex
		watches map[*watch]struct{}
	}
}

// watch is a running call of Watch.
type watch struct {
	stream mvcc.WatchStream
	id     mvcc.WatchID
}

func startEmbedded(ctx context.Context, cfg EmbeddedConfig) (_ *embedded, err error) {
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, err
	}
	lock, err := lockDir(cfg.Dir)
	if err != nil {
		return nil, err
	}
	e := &embedded{lock: lock, quota: cfg.QuotaBytes}
	defer func() {
		if err != nil {
			e.close()
		}
	}()
	if e.quota <= 0 {
		e.quota = DefaultQuotaBytes
	}
	serverConfig, err := e.config(cfg)
	if err != nil {
		return nil, err
	}
	starting.Lock()
	defer starting.Unlock()
	setSegmentBytes()
	server, err := newServer(serverConfig)
	if err != nil {
		return nil, err
	}
	e.server = server
	server.Start()
	if err := e.lead(ctx); err != nil {
		return nil, err
	}
	e.kv = server.KV()
	e.told(e.kv.Rev())
	e.pages = findPages(filepath.Join(cfg.Dir, databaseFile))
	e.pages.release() // etcd has read all of the file
	if len(cfg.Listen) > 0 {
		if e.clients, err = serveClients(server, cfg.Listen); err != nil {
			return nil, err
		}
	}
	return e, nil
}

// setSegmentBytes sets etcd's variable for all servers in this process.
var setSegmentBytes = sync.OnceFunc(func() { wal.SegmentSizeBytes = segmentBytes })

func (e *embedded) config(cfg EmbeddedConfig) (config.ServerConfig, error) {
	log := logger(cfg.Log, zapcore.WarnLevel)
	peer := types.MustNewURLs([]string{peerURL})
	var clients types.URLs
	for _, listen := range cfg.Listen {
		u, err := url.Parse(listen)
		if err != nil {
			return config.ServerConfig{}, fmt.Errorf("listen address %q: %w", listen, err)
		}
		clients = append(clients, *u)
	}
	maxRequest := cfg.MaxRequestBytes
	if maxRequest <= 0 {
		maxRequest = DefaultMaxRequestBytes
	}
	return config.ServerConfig{
		Name:                memberName,
		DataDir:             cfg.Dir,
		ClientURLs:          clients,
		PeerURLs:            peer,
		InitialPeerURLsMap:  types.URLsMap{memberName: peer},
		InitialClusterToken: memberName,
		NewCluster:          true, // if the directory is empty

		TickMs:                     uint(tick / time.Millisecond),
		ElectionTicks:              electionTicks,
		InitialElectionTickAdvance: true,
		PreVote:                    true,

		SnapshotCount:                     snapshotEntries,
		SnapshotCatchUpEntries:            keptEntries,
		MaxSnapFiles:                      2,
		MaxWALFiles:                       2,
		BackendBatchInterval:              backendInterval,
		BackendFreelistType:               bolt.FreelistMapType,
		BootstrapDefragThresholdMegabytes: defragAtStart,
		QuotaBackendBytes:                 -1, // see room
		UnsafeNoFsync:                     cfg.NoFsync,

		MaxTxnOps:            maxTxnKeys,
		MaxRequestBytes:      uint(maxRequest),
		MaxConcurrentStreams: math.MaxUint32,

		WarningApplyDuration:        time.Second,
		WarningUnaryRequestDuration: time.Second,
		CompactHashCheckTime:        time.Hour,
		DowngradeCheckTime:          time.Hour,
		StrictReconfigCheck:         true,
		BcryptCost:                  10,
		Metrics:                     "basic",
		V2Deprecation:               config.V2DeprDefault,
		ServerFeatureGate:           features.NewDefaultServerFeatureGate(memberName, log),
		Logger:                      log,
	}, nil
}

// starting is held by whoever starts a server: etcd publishes the state of raft for the
// one server that it supposes to be in a process, see raftStatus.
var starting sync.Mutex

// lead makes the only member lead and waits until it can be written to. Left
// alone, the member would wait for a random election timeout although it is
// nobody's follower; raft's "time out now" message, made for handing over leadership,
// starts the election at once. Raft must have applied its log by then: before, it does not know
// that it may campaign, and it may panic, see keptEntries.
func (e *embedded) lead(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	self := uint64(e.server.MemberID())
	pause := time.Millisecond
	timer := time.NewTimer(pause)
	defer timer.Stop()
	for {
		if status, ok := raftStatus(); ok && !e.campaigned && status.ID == self && status.Applied > 0 && status.Applied == status.HardState.GetCommit() {
			kind := raftpb.MsgTimeoutNow
			if err := e.server.Process(ctx, &raftpb.Message{Type: &kind, From: &self, To: &self}); err != nil {
				return fmt.Errorf("start election: %w", err)
			}
			e.campaigned = true
		}
		select {
		case <-e.server.ReadyNotify():
			return nil
		case <-e.server.StopNotify():
			return errors.New("the server stopped while starting")
		case <-ctx.Done():
			return fmt.Errorf("not ready: %w", ctx.Err())
		case <-timer.C:
			pause = min(2*pause, tick)
			timer.Reset(pause)
		}
	}
}

// raftStatus returns the state of the raft node that was made last. The server tells it only as an
// expvar; were that to go, elections would take their usual time.
func raftStatus() (raft.Status, bool) {
	published, ok := expvar.Get("raft.status").(expvar.Func)
	if !ok {
		return raft.Status{}, false
	}
	status, ok := published.Value().(raft.Status)
	return status, ok
}

func (e *embedded) read(ctx context.Context, r readRequest) (readResult, error) {
	if e.stopping() {
		return readResult{}, servererrors.ErrStopped
	}
	if err := ctx.Err(); err != nil {
		return readResult{}, err
	}
	end := r.end
	if len(end) == 1 && end[0] == 0 {
		end = []byte{} // "no end" of the multi-version store
	}
	txn := e.kv.Read(mvcc.ConcurrentReadTxMode, traceutil.TODO())
	defer txn.End()
	res, err := txn.Range(ctx, r.key, end, mvcc.RangeOptions{Rev: int64(r.at), Limit: r.limit, WithTotalCount: r.limit > 0})
	if err != nil {
		return readResult{}, readError(err)
	}
	e.told(res.Rev)
	size := 0
	for _, kv := range res.KVs {
		size += len(kv.Value)
	}
	e.pages.touched(size)
	return readResult{kvs: res.KVs, revision: storage.Revision(res.Rev), count: int64(max(res.Count, len(res.KVs)))}, nil
}

func (e *embedded) txn(ctx context.Context, r *pb.TxnRequest) (*pb.TxnResponse, error) {
	if !e.room(r) {
		return nil, storage.ErrFull
	}
	resp, err := e.server.Txn(ctx, r)
	if err != nil {
		return nil, writeError(err)
	}
	e.told(resp.Header.Revision)
	size := 0
	for _, op := range r.Success {
		size += len(op.GetRequestPut().GetValue()) // about what stood there before, which the comparison read
	}
	e.pages.touched(size)
	return resp, nil
}

// room says whether there is space for what the transaction writes. Unlike etcd's own
// quota it counts the pages in use rather than the file, which
// never shrinks while open: so compaction makes room again, with no operator at hand.
func (e *embedded) room(r *pb.TxnRequest) bool {
	var cost int64
	for _, op := range r.Success {
		if put := op.GetRequestPut(); put != nil {
			cost += int64(len(put.Key) + len(put.Value) + keyOverhead)
		}
	}
	return cost == 0 || e.server.Backend().SizeInUse()+cost <= e.quota
}

// keyOverhead is what a stored key costs besides its bytes, about.
const keyOverhead = 256

func (e *embedded) grant(ctx context.Context, ttlSeconds int64) (int64, error) {
	resp, err := e.server.LeaseGrant(ctx, &pb.LeaseGrantRequest{TTL: ttlSeconds})
	if err != nil {
		return 0, writeError(err)
	}
	return resp.ID, nil
}

func (e *embedded) renew(ctx context.Context, leaseID int64) error {
	_, err := e.server.LeaseRenew(ctx, lease.LeaseID(leaseID))
	return readError(err) // a second time does no harm
}

func (e *embedded) revoke(ctx context.Context, leaseID int64) error {
	resp, err := e.server.LeaseRevoke(ctx, &pb.LeaseRevokeRequest{ID: leaseID})
	if err != nil {
		return writeError(err)
	}
	e.told(resp.Header.Revision)
	return nil
}

// watchBatch bounds how many changes that wait are delivered together.
const watchBatch = 512

func (e *embedded) watch(ctx context.Context, key, end []byte, after storage.Revision, deliver func(storage.Batch) error) error {
	if len(end) == 1 && end[0] == 0 {
		end = []byte{}
	}
	stream := e.kv.NewWatchStream()
	defer stream.Close()
	w := &watch{stream: stream}
	var err error
	if w.id, err = stream.Watch(ctx, 0, key, end, int64(after)+1); err != nil {
		return err
	}
	if !e.register(w) {
		return servererrors.ErrStopped
	}
	defer e.unregister(w)

	var events []*mvccpb.Event
	for {
		var resp mvcc.WatchResponse
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-e.server.StoppingNotify():
			return servererrors.ErrStopped
		case resp = <-stream.Chan():
		}
		// What waits already is delivered together.
		events = events[:0]
		progress := after
	drain:
		for {
			if resp.CompactRevision != 0 {
				return storage.ErrCompacted
			}
			if len(resp.Events) == 0 {
				progress = max(progress, storage.Revision(resp.Revision))
			}
			events = append(events, resp.Events...)
			if len(events) >= watchBatch {
				break
			}
			select {
			case resp = <-stream.Chan():
			default:
				break drain
			}
		}
		b := batch(events)
		b.Revision = max(b.Revision, progress)
		e.told(int64(b.Revision))
		if err := deliver(b); err != nil {
			return err
		}
		after = b.Revision
	}
}

func (e *embedded) register(w *watch) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.stopping() {
		return false
	}
	if e.mu.watches == nil {
		e.mu.watches = make(map[*watch]struct{})
	}
	e.mu.watches[w] = struct{}{}
	return true
}

func (e *embedded) unregister(w *watch) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.mu.watches, w)
}

func (e *embedded) progress(context.Context) error {
	if e.stopping() {
		return servererrors.ErrStopped
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	for w := range e.mu.watches {
		w.stream.RequestProgress(w.id)
	}
	return nil
}

func (e *embedded) now(context.Context) (storage.Revision, error) {
	if e.stopping() {
		return 0, servererrors.ErrStopped
	}
	if e.clients != nil {
		e.told(e.kv.Rev())
	}
	return storage.Revision(e.newest.Load()), nil
}

// told notes a revision before anyone is told of it.
func (e *embedded) told(rev int64) {
	for {
		newest := e.newest.Load()
		if rev <= newest || e.newest.CompareAndSwap(newest, rev) {
			return
		}
	}
}

func (e *embedded) size(context.Context) (int64, error) { return e.server.Backend().Size(), nil }

func (e *embedded) compact(ctx context.Context, at storage.Revision) error {
	_, err := e.server.Compact(ctx, &pb.CompactionRequest{Revision: int64(at)})
	return writeError(err)
}

func (e *embedded) stopping() bool {
	select {
	case <-e.server.StoppingNotify():
		return true
	default:
		return false
	}
}

func (e *embedded) close() error {
	if e.clients != nil {
		e.clients.stop()
	}
	if e.server != nil {
		e.server.Stop()
	}
	return e.lock.Close()
}

// databaseFile is where etcd keeps its B-tree below a data directory.
var databaseFile = filepath.Join("member", "snap", "db")
