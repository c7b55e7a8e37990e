package server

import (
	"context"
	"fmt"

	"github.com/timonel/timonel/internal/crd"
	"golang.org/x/sync/errgroup"
)

// customResources makes the registry of custom resources.
func (s *Server) customResources() (*crd.Registry, error) {
	return crd.New(crd.Config{
		Live: s.Catalog, Objects: s.Engine.Objects(), View: s.Engine.View, Publish: s.documents.Set, Log: s.Log,
	})
}

// serveCustomResources puts the custom resources that are defined into the catalogue, and follows their
// definitions until stop is done. It returns when those that exist can be read.
func (s *Server) serveCustomResources(ctx, stop context.Context, background *errgroup.Group) error {
	if err := s.registry.Load(ctx); err != nil {
		return fmt.Errorf("load custom resources: %w", err)
	}
	background.Go(func() error { return s.registry.Run(stop) })
	return nil
}
