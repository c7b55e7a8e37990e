package etcd

import (
	"context"
	"log/slog"
	"strings"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// logger is a zap logger, which etcd wants, that passes messages of the level and worse on.
func logger(to *slog.Logger, level zapcore.Level) *zap.Logger {
	if to == nil {
		to = slog.Default()
	}
	return zap.New(&logCore{to: to.With("component", "etcd"), level: level})
}

// harmless are what a healthy single member warns of when it starts or stops.
var harmless = []string{
	"cannot campaign at term",         // see lead: the election is started again
	"check file permission",           // of a directory that somebody else made
	"Failed to detect schema version", // of an empty database
	"failed to update storage version",
	"failed to update cluster version", // stopped before it could
}

type logCore struct {
	to    *slog.Logger
	level zapcore.Level
}

func (c *logCore) Enabled(l zapcore.Level) bool { return l >= c.level }

func (c *logCore) With(fields []zapcore.Field) zapcore.Core {
	return &logCore{to: c.to.With(attributes(fields)...), level: c.level}
}

func (c *logCore) Check(e zapcore.Entry, checked *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if c.Enabled(e.Level) {
		return checked.AddCore(e, c)
	}
	return checked
}

func (c *logCore) Write(e zapcore.Entry, fields []zapcore.Field) error {
	for _, h := range harmless {
		if strings.Contains(e.Message, h) {
			return nil
		}
	}
	level := slog.LevelWarn
	if e.Level > zapcore.WarnLevel {
		level = slog.LevelError
	}
	c.to.Log(context.Background(), level, e.Message, attributes(fields)...)
	return nil
}

func (c *logCore) Sync() error { return nil }

func attributes(fields []zapcore.Field) []any {
	m := zapcore.NewMapObjectEncoder()
	out := make([]any, 0, len(fields))
	for _, f := range fields {
		f.AddTo(m)
		if v, ok := m.Fields[f.Key]; ok {
			out = append(out, slog.Any(f.Key, v))
		}
	}
	return out
}
