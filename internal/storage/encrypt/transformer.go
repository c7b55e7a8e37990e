package encrypt

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/timonel/timonel/internal/storage"
)

// Options say how to open a Transformer.
type Options struct {
	File   string // --encryption-provider-config
	Reload bool   // read it again when it changes
	Locate Locate
	Log    *slog.Logger // slog.Default()

	// Every is how often the file is looked at, and a plug-in that is not well is asked again; 0: usualEvery.
	Every time.Duration

	// Reloaded, if not nil, is told of each attempt to read a changed file.
	Reloaded func(error)
}

const usualEvery = 10 * time.Second

// Transformer encrypts what goes into a store by the rules of a configuration file. Every method
// works with the rules that are in force at its begin.
type Transformer struct {
	options Options
	rules   atomic.Pointer[rules]
	content []byte // of the file, as it is in force; Run's
}

var _ storage.Transformer = (*Transformer)(nil)

// Open reads the file and asks the KMS plug-ins for their keys. A plug-in that is away is not an error: Run
// goes on asking, and until then what it would encrypt cannot be written.
func Open(ctx context.Context, options Options) (*Transformer, error) {
	if options.Log == nil {
		options.Log = slog.Default()
	}
	options.Every = cmp.Or(options.Every, usualEvery)
	t := &Transformer{options: options}
	content, err := os.ReadFile(options.File)
	if err != nil {
		return nil, fmt.Errorf("error while opening encryption provider configuration file %q: %w", options.File, err)
	}
	r, err := t.read(content)
	if err != nil {
		return nil, err
	}
	for _, err := range r.poll(ctx) {
		options.Log.Warn("encryption at rest", "error", err)
	}
	t.content = content
	t.rules.Store(r)
	return t, nil
}

// read makes rules of a file's content, with the plug-ins that stay the same.
func (t *Transformer) read(content []byte) (*rules, error) {
	c, err := parse(content)
	if err != nil {
		return nil, fmt.Errorf("error while parsing encryption provider configuration file %q: error while parsing file: %w", t.options.File, err)
	}
	before := t.rules.Load()
	return newRules(c, func(config kmsConfig) *plugin {
		if before == nil {
			return nil
		}
		for _, p := range before.plugins {
			if p.config.same(config) {
				return p
			}
		}
		return nil
	})
}

func (k kmsConfig) same(o kmsConfig) bool {
	return k.APIVersion == o.APIVersion && k.Name == o.Name && k.Endpoint == o.Endpoint && k.Timeout.Duration == o.Timeout.Duration
}

// poll asks all plug-ins at once.
func (r *rules) poll(ctx context.Context) (errs []error) {
	results := make([]error, len(r.plugins))
	var wait sync.WaitGroup
	for i, p := range r.plugins {
		wait.Go(func() { results[i] = p.Poll(ctx) })
	}
	wait.Wait()
	for _, err := range results {
		if err != nil {
			errs = append(errs, err)
		}
	}
	return errs
}

// of returns the providers for what is stored at key.
func (t *Transformer) of(key string) (providers, bool) {
	resource, byName := t.options.Locate(key)
	return t.rules.Load().of(resource, byName)
}

func (t *Transformer) ToStore(ctx context.Context, key string, value []byte) ([]byte, error) {
	p, _ := t.of(key)
	return p.seal(ctx, key, value)
}

func (t *Transformer) FromStore(ctx context.Context, key string, stored []byte) ([]byte, error) {
	p, _ := t.of(key)
	return p.open(ctx, key, stored)
}

func (t *Transformer) Stale(key string, stored []byte) bool {
	p, _ := t.of(key)
	return p.stale(stored)
}

func (t *Transformer) Leaves(key string) bool {
	_, encrypted := t.of(key)
	return !encrypted
}

// Check is a health check.
type Check struct {
	Name  string
	Probe func() error
}

// Checks are the health checks of the plug-ins: one each, or with Reload, when they may come and go, one for all.
func (t *Transformer) Checks() []Check {
	if t.options.Reload {
		return []Check{{Name: "kms-providers", Probe: func() error {
			var errs []error
			for _, p := range t.rules.Load().plugins {
				errs = append(errs, p.Healthy())
			}
			return errors.Join(errs...)
		}}}
	}
	var checks []Check
	for i, p := range t.rules.Load().plugins {
		checks = append(checks, Check{Name: fmt.Sprintf("kms-provider-%d", i), Probe: p.Healthy})
	}
	return checks
}

// closeAfter is how long a plug-in that is no longer used may still be asked by those who began before.
const closeAfter = 30 * time.Second

// Run polls the plug-ins and, with Reload, looks at the file, until ctx ends, whose error it returns. It calls readable when values may have
// become readable that were not: a plug-in came back, or the file has another key.
func (t *Transformer) Run(ctx context.Context, readable func()) error {
	var running sync.WaitGroup
	defer running.Wait()
	defer func() {
		for _, p := range t.rules.Load().plugins {
			p.close()
		}
	}()
	cancels := map[*plugin]context.CancelFunc{}
	follow := func() {
		now := map[*plugin]bool{}
		for _, p := range t.rules.Load().plugins {
			now[p] = true
			if cancels[p] != nil {
				continue
			}
			ctx, cancel := context.WithCancel(ctx)
			cancels[p] = cancel
			running.Go(func() {
				p.run(ctx, t.options.Every, func(err error) { t.options.Log.Warn("encryption at rest", "error", err) }, readable)
			})
		}
		for p, cancel := range cancels {
			if !now[p] {
				cancel()
				delete(cancels, p)
				time.AfterFunc(closeAfter, p.close)
			}
		}
	}
	follow()
	if !t.options.Reload {
		<-ctx.Done()
		return ctx.Err()
	}
	ticker := time.NewTicker(t.options.Every)
	defer ticker.Stop()
	var seen os.FileInfo
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ticker.C:
		}
		info, err := os.Stat(t.options.File)
		if err == nil && seen != nil && os.SameFile(info, seen) && info.ModTime().Equal(seen.ModTime()) && info.Size() == seen.Size() {
			continue
		}
		changed := false
		if err == nil {
			changed, err = t.reload(ctx)
		}
		if err == nil {
			seen = info // else the same file is tried again: a plug-in may be on its way
		}
		if changed {
			follow()
			readable()
		}
		if err != nil {
			t.options.Log.Error("encryption at rest: the configuration stays as it was", "error", err)
		}
		if t.options.Reloaded != nil && (changed || err != nil) {
			t.options.Reloaded(err)
		}
	}
}

// reload puts the rules of the file in force if they are others, and their plug-ins well.
func (t *Transformer) reload(ctx context.Context) (changed bool, err error) {
	content, err := os.ReadFile(t.options.File)
	if err != nil || bytes.Equal(content, t.content) {
		return false, err
	}
	next, err := t.read(content)
	if err != nil {
		return false, err
	}
	if errs := next.poll(ctx); len(errs) > 0 {
		for _, p := range next.plugins {
			if !t.rules.Load().has(p) {
				p.close()
			}
		}
		return false, errors.Join(errs...)
	}
	t.rules.Store(next)
	t.content = content
	return true, nil
}

func (r *rules) has(p *plugin) bool {
	for _, one := range r.plugins {
		if one == p {
			return true
		}
	}
	return false
}
