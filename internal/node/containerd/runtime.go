package containerd

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/timonel/timonel/internal/node/containerd/pause"
)

// Bounds of supervision.
const (
	startTimeout   = 30 * time.Second // from exec to the first good answer
	stopTimeout    = 15 * time.Second // from SIGTERM to SIGKILL
	firstRestart   = time.Second      // wait before the first restart; doubles
	slowestRestart = 30 * time.Second
	steadyAfter    = time.Minute // a containerd that lived this long restarts at once again
	maxLog         = 16 << 20    // bytes of containerd.log kept over a start, once more as .1
	maxSocketPath  = 107         // what fits in a unix socket address, without its NUL
)

// Config says where a private containerd lives and what network its pods get.
type Config struct {
	// Root is a directory of its own, made if need be: configuration, log, images,
	// and the state directory while its path is short enough for a socket.
	Root string
	// PodCIDRs are the pod networks of this node, one for each IP family at most.
	// Default 10.244.0.0/24.
	PodCIDRs []netip.Prefix
	// Bridge is the network interface that pods hang on. Default "tml0". Two
	// private runtimes on one machine need different bridges and PodCIDRs.
	Bridge string
	// Log hears what a person may want to know. Default: nobody.
	Log *slog.Logger
}

// Runtime is a running private containerd. Its methods may be called from
// several goroutines.
type Runtime struct {
	config     Config
	settings   settings
	layout     layout
	program    string // containerd itself
	notes      []string
	adopted    bool
	lock       *os.File      // on Root
	bridgeLock *os.File      // on Config.Bridge; nil where there is no place for it
	ended      chan struct{} // closed when supervision is over

	mu struct {
		sync.Mutex
		process process
		closing bool
	}
	stop chan struct{} // closed by Close: ends a wait for a restart
}

// layout names the files below Config.Root.
type layout struct {
	config, log, lock, boot, unpacked string // files
	images, network, optional         string // directories
	state, addresses                  string // directories that a reboot may empty
	socket                            string
}

func layoutOf(root string) layout {
	state := filepath.Join(root, "run")
	// containerd opens a second socket, with this suffix, for its shims.
	if len(filepath.Join(state, "containerd.sock.ttrpc")) > maxSocketPath {
		sum := sha256.Sum256([]byte(root))
		state = filepath.Join("/run/timonel", hex.EncodeToString(sum[:6]))
	}
	return layout{
		config:    filepath.Join(root, "config.toml"),
		log:       filepath.Join(root, "containerd.log"),
		lock:      filepath.Join(root, "lock"),
		boot:      filepath.Join(root, "boot-id"),
		unpacked:  filepath.Join(root, "snapshotter"),
		images:    filepath.Join(root, "data"),
		network:   filepath.Join(root, "cni"),
		state:     state,
		socket:    filepath.Join(state, "containerd.sock"),
		optional:  filepath.Join(root, "opt"),
		addresses: filepath.Join(state, "addresses"),
	}
}

// Start brings up a private containerd and returns when it can run pods. A
// containerd that an earlier run left on the same Root is adopted when its
// configuration is the one wanted now, and replaced otherwise; containers keep
// running either way. ctx bounds the start only: afterwards the runtime runs
// until Close.
//
// Errors: what Hint says when something is not installed or we are not root;
// that another process uses Root; that containerd ended, with the end of its log.
func Start(ctx context.Context, config Config) (*Runtime, error) {
	if hint := Hint(); hint != "" {
		return nil, errors.New(hint)
	}
	r, err := prepare(ctx, config)
	if err != nil {
		return nil, err
	}
	if err := r.bringUp(ctx); err != nil {
		r.release()
		return nil, err
	}
	if err := r.ensureSandboxImage(ctx); err != nil {
		r.Close()
		return nil, err
	}
	return r, nil
}

// prepare fills in defaults, takes the lock, finds out what the machine can do
// and writes the configuration of the network.
func prepare(ctx context.Context, config Config) (*Runtime, error) {
	root, err := filepath.Abs(config.Root)
	if err != nil {
		return nil, fmt.Errorf("locate %s: %w", config.Root, err)
	}
	config.Root = root
	if len(config.PodCIDRs) == 0 {
		config.PodCIDRs = []netip.Prefix{netip.MustParsePrefix("10.244.0.0/24")}
	}
	if config.Bridge == "" {
		config.Bridge = "tml0"
	}
	if config.Log == nil {
		config.Log = slog.New(slog.DiscardHandler)
	}
	r := &Runtime{config: config, layout: layoutOf(root), ended: make(chan struct{}), stop: make(chan struct{})}

	for _, dir := range []string{root, r.layout.images, r.layout.network, r.layout.state} {
		if err := os.MkdirAll(dir, 0o711); err != nil {
			return nil, fmt.Errorf("make a directory for containerd: %w", err)
		}
	}
	if r.lock, err = lockFile(r.layout.lock); err != nil {
		return nil, fmt.Errorf("use %s for containerd: %w", root, err)
	}
	if r.bridgeLock, err = claimBridge(config.Bridge, root, filepath.Join(r.layout.addresses, config.Bridge)); err != nil {
		r.release()
		return nil, err
	}
	if err := r.explore(ctx); err != nil {
		r.release()
		return nil, err
	}
	return r, nil
}

// release lets another process use the directory and the bridge.
func (r *Runtime) release() error {
	err := r.lock.Close()
	if r.bridgeLock != nil {
		err = errors.Join(err, r.bridgeLock.Close())
	}
	if err != nil {
		return fmt.Errorf("release the locks of %s: %w", r.config.Root, err)
	}
	return nil
}

// explore decides settings and network from what works on this machine.
func (r *Runtime) explore(ctx context.Context) error {
	var err error
	if r.program, err = lookup("containerd"); err != nil {
		return err
	}
	runc, err := lookup("runc")
	if err != nil {
		return err
	}
	version, err := exec.CommandContext(ctx, r.program, "--version").Output()
	if err != nil {
		return fmt.Errorf("ask %s for its version: %w", r.program, err)
	}
	release, err := parseRelease(string(version))
	if err != nil {
		return err
	}
	if err := canUseCgroups("/sys/fs/cgroup"); err != nil {
		return fmt.Errorf("this machine cannot limit containers: %w", err)
	}
	r.settings = settings{
		Release: release,
		Root:    r.layout.images, State: r.layout.state, Socket: r.layout.socket, Optional: r.layout.optional,
		Runc: runc, SandboxImage: pause.Image,
		PluginDir: pluginDirectory(), NetworkDir: r.layout.network,
		Snapshotter: "overlayfs", KeepPriority: !canLowerOOMScore(), UsePortBelow: true,
		DisabledKinds: unusedPlugins,
	}
	if err := canOverlay(r.layout.images); err != nil {
		r.settings.Snapshotter = "native"
		r.note("images are copied for every container, which is slow and large", err)
	}
	return r.writeNetwork(ctx)
}

func (r *Runtime) writeNetwork(ctx context.Context) error {
	path := filepath.Join(r.layout.network, networkFile)
	if err := canBridge(); err != nil {
		r.note("pods get no network of their own; pods with hostNetwork work", err)
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("remove the pod network: %w", err)
		}
		return nil
	}
	rules, err := tryIptables(ctx)
	if err != nil {
		r.note("pods may not reach other networks, or host ports may not work", err)
	}
	pods := network{
		Bridge: r.config.Bridge, PodCIDRs: r.config.PodCIDRs,
		LeaseDir:   r.layout.addresses,
		Masquerade: rules.masquerade,
		HostPorts:  rules.hostPorts && hasPlugins(r.settings.PluginDir, "portmap"),
		Accept:     rules.drops && hasPlugins(r.settings.PluginDir, "firewall"),
	}
	data, err := pods.configuration()
	if err != nil {
		return err
	}
	return writeChanged(path, data)
}

func (r *Runtime) note(effect string, cause error) {
	r.notes = append(r.notes, fmt.Sprintf("%s: %v", effect, cause))
	r.config.Log.Warn(effect, "cause", cause)
}

// Endpoint is the gRPC target of the CRI socket.
func (r *Runtime) Endpoint() string { return "unix://" + r.layout.socket }

// Notes lists what this machine cannot do and what follows from it, for people.
func (r *Runtime) Notes() []string { return r.notes }

// Adopted reports whether an earlier run's containerd was found running and kept.
func (r *Runtime) Adopted() bool { return r.adopted }

// bringUp adopts the containerd that runs, or replaces it, or starts one.
func (r *Runtime) bringUp(ctx context.Context) error {
	wanted, err := r.settings.configuration()
	if err != nil {
		return err
	}
	written, _ := os.ReadFile(r.layout.config)
	var left process
	if written != nil { // else there was no earlier run
		left = findProcess(r.program, r.layout.config)
	}
	if left != nil && bytes.Equal(written, wanted) {
		if err := r.untilReady(ctx, left); err == nil {
			r.adopted = true
			r.supervise(left)
			return nil
		}
	}
	if left != nil { // it runs with another configuration, or does not answer
		if err := endProcess(left); err != nil {
			return err
		}
	}
	if err := r.forgetLastBoot(); err != nil {
		return err
	}
	if err := writeChanged(r.layout.config, wanted); err != nil {
		return err
	}
	p, err := r.launch(ctx)
	if err != nil {
		return err
	}
	r.supervise(p)
	return nil
}

// forgetLastBoot empties the state directory after a reboot, as a tmpfs would
// be: nothing that it describes exists any more.
func (r *Runtime) forgetLastBoot() error {
	now, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return fmt.Errorf("learn whether the machine was restarted: %w", err)
	}
	was, err := os.ReadFile(r.layout.boot)
	if err == nil && !bytes.Equal(was, now) {
		if err := os.RemoveAll(r.layout.state); err != nil {
			return fmt.Errorf("forget what ran before the machine was restarted: %w", err)
		}
		if err := os.MkdirAll(r.layout.state, 0o711); err != nil {
			return fmt.Errorf("make a directory for containerd: %w", err)
		}
	}
	return writeChanged(r.layout.boot, now)
}

// launch starts containerd and waits until it answers.
func (r *Runtime) launch(ctx context.Context) (process, error) {
	if info, err := os.Stat(r.layout.log); err == nil && info.Size() > maxLog {
		if err := os.Rename(r.layout.log, r.layout.log+".1"); err != nil {
			return nil, fmt.Errorf("rotate containerd's log: %w", err)
		}
	}
	log, err := os.OpenFile(r.layout.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open containerd's log: %w", err)
	}
	defer log.Close()
	logged := int64(0)
	if info, err := log.Stat(); err == nil {
		logged = info.Size()
	}

	p, err := startProcess(r.program, r.layout.config, log)
	if err != nil {
		return nil, err
	}
	if err := r.untilReady(ctx, p); err != nil {
		endProcess(p)
		return nil, fmt.Errorf("start containerd: %w%s", err, complaints(r.layout.log, logged))
	}
	return p, nil
}

// untilReady returns nil when the runtime answers and can run containers, and an
// error when p ends first or time is up.
func (r *Runtime) untilReady(ctx context.Context, p process) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	go func() {
		select {
		case <-p.ended():
			cancel()
		case <-ctx.Done():
		}
	}()
	conn, err := Dial(r.Endpoint())
	if err != nil {
		return err
	}
	defer conn.Close()
	client := runtimeapi.NewRuntimeServiceClient(conn)
	// Refused connections and "not initialized yet" both pass within
	// milliseconds: ask again, a little later each time.
	for wait := 10 * time.Millisecond; ; wait = min(2*wait, 500*time.Millisecond) {
		answer, err := client.Status(ctx, &runtimeapi.StatusRequest{})
		if err == nil {
			if ready, why := condition(answer, runtimeapi.RuntimeReady); !ready {
				err = fmt.Errorf("not ready: %s", why)
			} else {
				return nil
			}
		}
		if status.Code(err) == codes.Unimplemented {
			return fmt.Errorf("it has no CRI plugin: %w", err)
		}
		select {
		case <-p.ended():
			return errors.New("it ended at once")
		case <-ctx.Done():
			return fmt.Errorf("no good answer: %w", err)
		case <-time.After(wait):
		}
	}
}

// supervise starts containerd again whenever it ends, until Close.
func (r *Runtime) supervise(p process) {
	r.mu.process = p
	go func() {
		defer close(r.ended)
		wait, since := firstRestart, time.Now()
		for {
			<-p.ended()
			if r.isClosing() {
				return
			}
			if time.Since(since) > steadyAfter {
				wait = firstRestart
			}
			r.config.Log.Error("containerd ended by itself: starting it again", "in", wait, "log", r.layout.log)
			select {
			case <-time.After(wait):
			case <-r.stop:
				return
			}
			wait, since = min(2*wait, slowestRestart), time.Now()
			next, err := r.launch(context.Background())
			if err != nil {
				r.config.Log.Error("containerd does not start", "err", err)
				continue // p has ended still: wait longer, try again
			}
			p = next
			r.mu.Lock()
			r.mu.process = p
			late := r.mu.closing // Close came while it started, and ended the one before
			r.mu.Unlock()
			if late {
				endProcess(p)
				return
			}
		}
	}()
}

func (r *Runtime) isClosing() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.mu.closing
}

// Close ends containerd and waits for its end; containers keep running, held by
// their shims, and the next Start finds them. Closing again does nothing.
func (r *Runtime) Close() error {
	r.mu.Lock()
	if r.mu.closing {
		r.mu.Unlock()
		<-r.ended
		return nil
	}
	r.mu.closing = true
	p := r.mu.process
	r.mu.Unlock()
	close(r.stop)

	err := endProcess(p)
	<-r.ended
	return errors.Join(err, r.release())
}

// complaints returns what containerd logged as errors since an offset, for the
// end of an error message.
func complaints(path string, from int64) string {
	const maxLines = 5
	data, err := os.ReadFile(path)
	if err != nil || from > int64(len(data)) {
		return ""
	}
	var lines []string
	for line := range strings.Lines(string(data[from:])) {
		if strings.Contains(line, "level=error") || strings.Contains(line, "level=fatal") || strings.HasPrefix(line, "containerd: ") {
			lines = append(lines, strings.TrimSpace(line))
		}
	}
	if len(lines) == 0 {
		return "; its log is " + path
	}
	return "; it said: " + strings.Join(lines[max(0, len(lines)-maxLines):], "\n")
}

// lockFile takes an exclusive lock that ends with the process.
func lockFile(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, errors.New("another process uses it")
		}
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return f, nil
}

// writeChanged replaces a file in one step, unless it has this content already.
func writeChanged(path string, data []byte) error {
	if was, err := os.ReadFile(path); err == nil && bytes.Equal(was, data) {
		return nil
	}
	next := path + ".next"
	if err := os.WriteFile(next, data, 0o600); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := os.Rename(next, path); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}
