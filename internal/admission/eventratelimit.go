package admission

import (
	lru "container/list"
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// defaultEventKeys is how many keys of a limit are remembered if its configuration does not say.
const defaultEventKeys = 4096

// EventRateLimit is one limit on how many events clients may write (eventratelimit.admission.k8s.io/v1alpha1 Limit).
type EventRateLimit struct {
	Type  string // Server, Namespace, User or SourceAndObject: what has a bucket of its own
	QPS   int32  // that a bucket is refilled with each second
	Burst int32  // that a full bucket holds
	Cache int32  // buckets that are remembered at most; 0: 4096
}

// eventRateLimit refuses events that come too fast, with 429.
func eventRateLimit(limits []EventRateLimit) Plugin {
	var all []*buckets
	for _, l := range limits {
		if l.Cache <= 0 || l.Type == "Server" {
			l.Cache = defaultEventKeys
		}
		all = append(all, &buckets{EventRateLimit: l, byKey: map[string]*lru.Element{}, recent: lru.New()})
	}
	return Plugin{Name: "EventRateLimit", Check: func(_ context.Context, r *Request) error {
		if r.DryRun || r.Operation != Create && r.Operation != Update || !r.Is("", "events") && !r.Is("events.k8s.io", "events") {
			return nil
		}
		var refused []string
		for _, b := range all { // every bucket pays, whatever the others say
			if key := b.key(r); !b.take(key, time.Now()) {
				refused = append(refused, fmt.Sprintf("limit reached on type %s for key %s", b.Type, key))
			}
		}
		if len(refused) == 0 {
			return nil
		}
		text := strings.Join(refused, ", ")
		if len(refused) > 1 {
			text = "[" + text + "]"
		}
		return apierrors.NewTooManyRequestsError(text)
	}}
}

// buckets are the token buckets of one limit; those used longest ago are forgotten first.
type buckets struct {
	EventRateLimit
	mu     sync.Mutex
	byKey  map[string]*lru.Element // of *bucket
	recent *lru.List               // newest first
}

type bucket struct {
	key    string
	tokens float64
	at     time.Time
}

func (b *buckets) take(key string, now time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	element := b.byKey[key]
	if element == nil {
		if len(b.byKey) >= int(b.Cache) {
			oldest := b.recent.Back()
			delete(b.byKey, b.recent.Remove(oldest).(*bucket).key)
		}
		element = b.recent.PushFront(&bucket{key: key, tokens: float64(b.Burst), at: now})
		b.byKey[key] = element
	} else {
		b.recent.MoveToFront(element)
	}
	one := element.Value.(*bucket)
	one.tokens = min(float64(b.Burst), one.tokens+now.Sub(one.at).Seconds()*float64(b.QPS))
	one.at = now
	if one.tokens < 1 {
		return false
	}
	one.tokens--
	return true
}

// key is whose bucket the request is charged to.
func (b *buckets) key(r *Request) string {
	switch b.Type {
	case "Namespace":
		return r.Namespace
	case "User":
		if r.User != nil {
			return r.User.Name
		}
	case "SourceAndObject":
		if e, ok := r.Object.(*corev1.Event); ok {
			o := &e.InvolvedObject
			return strings.Join([]string{e.Source.Component, e.Source.Host, o.Kind, o.Namespace, o.Name, string(o.UID), o.APIVersion}, "")
		}
	}
	return ""
}
