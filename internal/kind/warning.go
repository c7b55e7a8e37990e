package kind

import "context"

type warnKey struct{}

// WithWarn returns a context through which hooks of a kind can warn the client.
func WithWarn(ctx context.Context, warn func(texts ...string)) context.Context {
	return context.WithValue(ctx, warnKey{}, warn)
}

// WarnClient adds a Warning header to the answer of the request in ctx, if there is one.
func WarnClient(ctx context.Context, text string) {
	if warn, ok := ctx.Value(warnKey{}).(func(...string)); ok {
		warn(text)
	}
}
