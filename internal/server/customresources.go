package server

import (
	"context"
	"fmt"

	"github.com/timonel/timonel/internal/crd"
	"golang.org/x/sync/errgroup"
)

// serveCustomResources puts the custom resources that are defined into the catalogue, and follows their
// definitions until stop is done. It returns when those that exist can be read.
func (s *Server) serveCustomResources(ctx, stop context.Context, background *errgroup.Group) error {
	registry, err := crd.New(crd.Config{
		Live: s.Catalog, Objects: s.Engine.Objects(), View: s.Engine.View, Publish: s.documents.Set, Log: s.Log,
	})
	if err != nil {
		return err
	}
	if err := registry.Load(ctx); err != nil {
		return fmt.Errorf("load custom resources: %w", err)
	}
	background.Go(func() error { return registry.Run(stop) })
	return nil
}
