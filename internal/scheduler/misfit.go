package scheduler

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// A misfit says why a pod fits on no node.
type misfit struct {
	nodes      int                // looked at; 0: there are none
	everywhere *Status            // rejected on all of them at once
	statuses   map[string]*Status // or else by node name
	rejects    []Plugin           // who rejected it
}

// message is what a person reads:
//
//	0/3 nodes are available: 1 Insufficient cpu, 2 Too many pods. <after>
func (m *misfit) message(after string) string {
	if m.nodes == 0 {
		return "no nodes available to schedule pods"
	}
	msg := fmt.Sprintf("0/%d nodes are available", m.nodes)
	if m.everywhere != nil {
		msg += ": " + strings.Join(m.everywhere.Reasons, ", ") + "."
	} else {
		msg += histogram(m.statuses)
	}
	if after != "" {
		msg += " " + after
	}
	return msg
}

// histogram counts the nodes with each reason: ": 1 a, 2 b." Its order is that
// of the text, as in kube-scheduler.
func histogram(statuses map[string]*Status) string {
	counts := map[string]int{}
	for _, status := range statuses {
		for _, reason := range status.Reasons {
			counts[reason]++
		}
	}
	if len(counts) == 0 {
		return "."
	}
	lines := make([]string, 0, len(counts))
	for reason, n := range counts {
		lines = append(lines, fmt.Sprintf("%d %s", n, reason))
	}
	slices.Sort(lines)
	return ": " + strings.Join(lines, ", ") + "."
}

// status is why node was rejected.
func (m *misfit) status(node string) *Status {
	if m.everywhere != nil {
		return m.everywhere
	}
	return m.statuses[node]
}

func (s *Status) asError() error {
	if s.Err != nil {
		return s.Err
	}
	return errors.New(strings.Join(s.Reasons, ", "))
}
