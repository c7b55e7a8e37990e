package server

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/timonel/timonel/internal/httpapi"
	"github.com/timonel/timonel/internal/kind"
	"github.com/timonel/timonel/internal/storage"
	"github.com/timonel/timonel/internal/storage/encrypt"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// onlyNamed are resources that no wildcard of an encryption configuration means: servers must be able to read what
// they serve before they can be asked to decrypt anything.
var onlyNamed = map[schema.GroupResource]bool{
	{Group: "apiextensions.k8s.io", Resource: "customresourcedefinitions"}: true,
	{Group: "apiregistration.k8s.io", Resource: "apiservices"}:             true,
}

// LocateStored says which resource is stored at a key, for encryption at rest.
func LocateStored(prefix string, definitions []*kind.Definition) encrypt.Locate {
	layout := kind.NewLayout(prefix, definitions)
	return func(key string) (encrypt.Resource, bool) {
		r := layout.Resource(key)
		return encrypt.Resource{Group: r.Group, Name: r.Resource}, onlyNamed[r]
	}
}

// openEncryption puts --encryption-provider-config between the server and its store.
func (s *Server) openEncryption(ctx context.Context) error {
	if s.EncryptionProviderConfig == "" {
		return nil
	}
	var err error
	s.encryption, err = encrypt.Open(ctx, encrypt.Options{
		File: s.EncryptionProviderConfig, Reload: s.EncryptionProviderConfigReload, Every: s.pace, Log: s.Log,
		Locate: LocateStored(s.EtcdPrefix, s.Catalog.Catalog().All()), Reloaded: reloads(s.metrics.Register),
	})
	if err != nil {
		return err
	}
	transformed := storage.Transform(s.Store, s.encryption)
	s.Store, s.stale = transformed, transformed.Stale
	return nil
}

// runEncryption keeps encryption up to date until ctx is done.
func (s *Server) runEncryption(ctx context.Context) error {
	return s.encryption.Run(ctx, func() {
		if err := s.cache.Reread(ctx); err != nil && ctx.Err() == nil {
			s.Log.Warn("values that could not be decrypted are not read again", "error", err)
		}
	})
}

// addEncryptionHealth adds the health of KMS plug-ins.
func (s *Server) addEncryptionHealth() {
	if s.encryption == nil {
		return
	}
	for _, c := range s.encryption.Checks() {
		s.health.Add(httpapi.Check{Name: c.Name, Livez: true, Readyz: true, Probe: func(*http.Request) error { return c.Probe() }})
	}
}

// reloads counts attempts to put a changed encryption configuration in force.
func reloads(register func(...prometheus.Collector)) func(error) {
	total := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "apiserver_encryption_config_controller_automatic_reloads_total", Help: "[ALPHA] Attempts to read a changed encryption configuration.",
	}, []string{"status"})
	last := prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "apiserver_encryption_config_controller_automatic_reload_last_timestamp_seconds", Help: "[ALPHA] When that was tried last.",
	}, []string{"status"})
	register(total, last)
	return func(err error) {
		status := "success"
		if err != nil {
			status = "failure"
		}
		total.WithLabelValues(status).Inc()
		last.WithLabelValues(status).Set(float64(time.Now().UnixNano()) / 1e9)
	}
}

// checkEncryptionFlags says what is wrong with the flags about encryption.
func (c *Config) checkEncryptionFlags() error {
	if c.EncryptionProviderConfigReload && c.EncryptionProviderConfig == "" {
		return errors.New("--encryption-provider-config-automatic-reload must be set with --encryption-provider-config")
	}
	return nil
}
