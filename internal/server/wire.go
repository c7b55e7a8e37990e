// Package server is the wiring room, the only one that knows all others: flags,
// what is made from what, first boot, running and shutting down.
//
// Start reading at Open.
package server

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/timonel/timonel/internal/admission"
	"github.com/timonel/timonel/internal/authn"
	"github.com/timonel/timonel/internal/authz"
	"github.com/timonel/timonel/internal/bootstrap"
	"github.com/timonel/timonel/internal/crd"
	"github.com/timonel/timonel/internal/engine"
	"github.com/timonel/timonel/internal/fairness"
	"github.com/timonel/timonel/internal/httpapi"
	"github.com/timonel/timonel/internal/kind"
	"github.com/timonel/timonel/internal/metrics"
	"github.com/timonel/timonel/internal/openapi"
	"github.com/timonel/timonel/internal/storage"
	"github.com/timonel/timonel/internal/storage/encrypt"
	"github.com/timonel/timonel/internal/storage/etcd"
	"github.com/timonel/timonel/internal/storage/watchcache"
	"github.com/timonel/timonel/internal/trace"
	"github.com/timonel/timonel/internal/user"
	"golang.org/x/sync/errgroup"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/uuid"
	"k8s.io/client-go/kubernetes/scheme"
)

// recentRequests is the size of the ring behind /debug/requests.
const recentRequests = 2048

// NodeIdentity names the node that runs beside the server, if one does, so that first boot makes
// certificates for it.
type NodeIdentity struct {
	Name      string
	Addresses []netip.Addr
}

// Server is an API server that has been put together.
type Server struct {
	*settled
	Credentials *credentials
	Store       storage.Store
	Catalog     *kind.Live
	Engine      *engine.Engine

	identity   bootstrap.Identity
	encryption *encrypt.Transformer                                                     // nil: none
	stale      func(ctx context.Context, key string, at storage.Revision) (bool, error) // nil: never
	cache      *watchcache.Cache
	front      *httpapi.Server
	ring       *trace.Ring
	metrics    *metrics.Requests
	health     *httpapi.Health
	documents  *openapi.Documents
	registry   *crd.Registry
	feeds      feeds
	etcd       *etcd.Store // Store, or what is below it
	peers      *peers      // nil unless --endpoint-reconciler-type=lease
	rbac       *authz.RBAC // nil: not an authorizer
	booted     atomic.Bool
	published  atomic.Bool // the storage versions are, where they have to be
	started    time.Time
	port       int // bound
}

// Open puts a server together. It opens the storage, but serves nothing before Run.
func Open(ctx context.Context, config Config, node NodeIdentity) (*Server, error) {
	s := &Server{identity: bootstrap.Identity{Hostname: hostname(), Instance: string(uuid.NewUUID())}, ring: trace.NewRing(recentRequests), feeds: feeds{}, health: &httpapi.Health{}, started: time.Now()}
	var err error
	if s.settled, err = config.settle(); err != nil {
		return nil, err
	}
	s.sayIdle()
	s.metrics = newMetrics(s.gates)
	// Keys are made while the storage opens: both take their time on first boot.
	var group errgroup.Group
	group.Go(func() (err error) { s.Credentials, err = s.credentials(node); return err })
	group.Go(func() error {
		store, err := s.openStore(ctx)
		if err == nil { // else store is nil, which in an interface is not
			s.Store, s.etcd = store, store
		}
		return err
	})
	if err := group.Wait(); err != nil {
		if s.Store != nil {
			_ = s.Store.Close() // the first error is the one to tell
		}
		return nil, err
	}
	if err := s.wire(ctx); err != nil {
		_ = s.Store.Close()
		return nil, err
	}
	return s, nil
}

func (s *settled) openStore(ctx context.Context) (*etcd.Store, error) {
	compaction := s.EtcdCompaction
	if compaction == 0 {
		compaction = -1 // the flag's 0 is never
	}
	reuse := time.Duration(s.EtcdLeaseReuse) * time.Second
	if len(s.EtcdServers) > 0 {
		return etcd.Dial(ctx, etcd.Config{
			Endpoints: s.EtcdServers, CertFile: s.EtcdCertFile, KeyFile: s.EtcdKeyFile, CAFile: s.EtcdCAFile,
			Compaction: compaction, LeaseReuse: reuse, Log: s.Log,
		})
	}
	return etcd.Embedded(ctx, etcd.EmbeddedConfig{
		Dir: filepath.Join(s.DataDir, "etcd"), Listen: s.EtcdListen, Compaction: compaction,
		LeaseReuse: reuse, NoFsync: s.EtcdUnsafeNoFsync, Log: s.Log,
	})
}

// wire makes the rooms from each other.
func (s *Server) wire(ctx context.Context) error {
	gate := &admission.Gate{}
	authorizer := &lateAuthorizer{}
	authenticator := &lateAuthenticator{}

	definitions, err := s.definitions(authorizer, authenticator)
	if err != nil {
		return err
	}
	s.Catalog = kind.NewLive(kind.NewCatalog(definitions...))
	if err := s.openEncryption(ctx); err != nil {
		return err
	}
	s.documents = openapi.New(openapi.Config{Served: s.Catalog.Catalog().Serves})
	s.cache = watchcache.New(s.Store, s.EtcdPrefix+"/", watchcache.Options{Log: s.Log})
	if s.EndpointReconcilerType == byLease {
		s.peers = s.newPeers()
	}
	s.Engine = engine.New(engine.Config{
		Catalog: s.Catalog, Store: s.Store, Cache: s.cache, Prefix: s.EtcdPrefix, Admission: gate,
		Registered: scheme.Scheme.Recognizes, Stale: s.stale,
	})
	if s.registry, err = s.customResources(); err != nil {
		return err
	}
	if authenticator.Authenticator, err = s.authenticator(); err != nil {
		return err
	}
	authorizer.set(s.authorizers())
	plugins, err := s.plugins(authorizer)
	if err != nil {
		return err
	}
	gate.Set(plugins) // before the first request

	s.metrics.Register(&storeMetrics{s})
	s.front = httpapi.New(httpapi.Config{
		Catalog: s.Catalog, Abreast: s.registry.Abreast, Engine: s.Engine, Authenticator: authenticator,
		Impersonate: func(ctx context.Context, h http.Header, u *user.Info, target *authz.Attributes) (*user.Info, error) {
			return authn.Impersonate(ctx, h, u, authorizer, target)
		},
		Pacer:          fairness.New(fairness.Limits{Reading: s.MaxRequestsInFlight, Writing: s.MaxMutatingRequestsInFlight}),
		Authorizer:     authorizer,
		Connector:      s.connector(gate),
		Ring:           s.ring,
		Metrics:        s.metrics,
		Paths:          s.paths(),
		RequestTimeout: s.RequestTimeout,
		MinWatch:       time.Duration(s.MinRequestTimeout) * time.Second,
		CBOR:           s.gates.Enabled("CBORServingAndStorage"),
		Log:            s.Log,
	})
	return nil
}

// lateAuthorizer and lateAuthenticator close the circle between the kinds that ask who may do what
// (access reviews) and the authorizers that read kinds.
type lateAuthorizer struct{ authz.Chain }

func (l *lateAuthorizer) set(c authz.Chain) { l.Chain = c }

type lateAuthenticator struct{ *authn.Authenticator }

func (s *Server) authenticator() (*authn.Authenticator, error) {
	c := s.Credentials
	reader := s.Engine.Reader()
	config := authn.Config{
		Loopback: c.loopbackToken, ClientCA: c.clientCA, Audiences: s.APIAudiences, Anonymous: s.AnonymousAuth,
	}
	if c.frontCA != nil {
		config.RequestHeader = &authn.RequestHeader{
			CA: c.frontCA, AllowedNames: s.RequestHeaderAllowedNames,
			UserHeaders: orDefault(s.RequestHeaderUsernameHeaders, "X-Remote-User"), UIDHeaders: s.RequestHeaderUIDHeaders,
			GroupHeaders: orDefault(s.RequestHeaderGroupHeaders, "X-Remote-Group"), ExtraPrefixes: orDefault(s.RequestHeaderExtraHeaderPrefixes, "X-Remote-Extra-"),
		}
	}
	if s.TokenAuthFile != "" {
		tokens, err := authn.OpenStaticTokens(s.TokenAuthFile)
		if err != nil {
			return nil, fmt.Errorf("read token file: %w", err)
		}
		config.Tokens = append(config.Tokens, tokens)
	}
	accounts := &authn.ServiceAccountTokens{Issuers: s.ServiceAccountIssuers, Keys: c.verifiers}
	if s.ServiceAccountLookup {
		index := authn.NewIndex(authn.FromReader(reader))
		accounts.Accounts = abreastAccounts{index, s.addFeed(index, serviceAccountsResource)}
		s.addFeed(index, podsResource, nodesResource)
	}
	config.Tokens = append(config.Tokens, accounts, &authn.LegacyTokens{Keys: c.verifiers, Objects: reader})
	if s.EnableBootstrapTokenAuth {
		config.Tokens = append(config.Tokens, &authn.BootstrapTokens{Secrets: reader})
	}
	return authn.New(config), nil
}

func orDefault(values []string, fallback string) []string {
	if len(values) == 0 {
		return []string{fallback}
	}
	return values
}

// authorizers makes the chain of --authorization-mode, and the feeds that keep it up to date.
func (s *Server) authorizers() authz.Chain {
	chain := authz.Chain{authz.Masters{}}
	for _, mode := range s.AuthorizationModes {
		switch mode {
		case "Node":
			node := authz.NewNode()
			chain = append(chain, abreastNode{node, s.addFeed(node, podsResource, schema.GroupResource{Resource: "persistentvolumes"},
				schema.GroupResource{Group: "storage.k8s.io", Resource: "volumeattachments"},
				schema.GroupResource{Group: "resource.k8s.io", Resource: "resourceslices"},
				schema.GroupResource{Group: "certificates.k8s.io", Resource: "podcertificaterequests"})})
		case "RBAC":
			s.rbac = authz.NewRBAC()
			of := func(name string) schema.GroupResource {
				return schema.GroupResource{Group: "rbac.authorization.k8s.io", Resource: name}
			}
			chain = append(chain, abreastRBAC{s.rbac, s.addFeed(s.rbac, of("clusterroles"), of("clusterrolebindings"), of("roles"), of("rolebindings"))})
		case "AlwaysAllow":
			chain = append(chain, authz.AlwaysAllow{})
		case "AlwaysDeny":
			chain = append(chain, authz.AlwaysDeny{})
		}
	}
	return chain
}

// boot makes what the server needs to exist: namespaces, policy, its own service.
func (s *Server) boot(ctx context.Context) error {
	config := bootstrap.Config{
		Catalog: s.Catalog.Catalog(), ServiceRanges: s.serviceRanges, Port: s.port, Identity: s.identity,
		StorageVersions: s.publishesVersions(),
		RBAC:            s.rbac != nil, ClusterAdmins: s.rbac != nil && s.DataDir != "",
		Authentication: bootstrap.Authentication{
			ClientCA: string(s.Credentials.clientCAPEM), RequestHeaderCA: string(s.Credentials.frontCAPEM),
			AllowedNames:    s.RequestHeaderAllowedNames,
			UsernameHeaders: orDefault(s.RequestHeaderUsernameHeaders, "X-Remote-User"), UIDHeaders: s.RequestHeaderUIDHeaders,
			GroupHeaders: orDefault(s.RequestHeaderGroupHeaders, "X-Remote-Group"), ExtraHeaderPrefixes: orDefault(s.RequestHeaderExtraHeaderPrefixes, "X-Remote-Extra-"),
		},
	}
	var err error
	if config.Servers, err = s.servers(ctx); err != nil {
		return err
	}
	if err := bootstrap.Reconcile(ctx, s.Engine.Objects(), config); err != nil {
		return fmt.Errorf("make bootstrap objects: %w", err)
	}
	return nil
}

// ready says why the server is not ready yet, or nil.
func (s *Server) ready(*http.Request) error {
	select {
	case <-s.cache.Ready():
	default:
		return errors.New("the watch cache is not loaded")
	}
	if !s.booted.Load() {
		return errors.New("bootstrap objects are not made")
	}
	return nil
}
