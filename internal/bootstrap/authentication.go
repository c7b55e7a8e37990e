package bootstrap

import (
	"bytes"
	"encoding/json"
	"encoding/pem"
	"maps"
	"slices"
	"strings"

	"github.com/timonel/timonel/internal/object"
	corev1 "k8s.io/api/core/v1"
)

// repairAuthentication adds to the ConfigMap what this server trusts. What other servers trust stays, so that
// servers with different authorities can run together while one is replaced.
func repairAuthentication(h, w object.Object) bool {
	have, want := h.(*corev1.ConfigMap), w.(*corev1.ConfigMap)
	data := maps.Clone(have.Data)
	if data == nil {
		data = map[string]string{}
	}
	for key, value := range want.Data {
		if strings.HasSuffix(key, "-ca-file") {
			data[key] = joinCertificates(data[key], value)
		} else {
			data[key] = joinLists(data[key], value)
		}
	}
	if maps.Equal(data, have.Data) {
		return false
	}
	have.Data = data
	return true
}

// joinCertificates adds the certificates of a PEM text that another lacks.
func joinCertificates(have, more string) string {
	var known [][]byte
	each := func(text string, do func(*pem.Block)) {
		for block, rest := pem.Decode([]byte(text)); block != nil; block, rest = pem.Decode(rest) {
			do(block)
		}
	}
	each(have, func(b *pem.Block) { known = append(known, b.Bytes) })
	each(more, func(b *pem.Block) {
		if slices.ContainsFunc(known, func(k []byte) bool { return bytes.Equal(k, b.Bytes) }) {
			return
		}
		if have != "" && !strings.HasSuffix(have, "\n") {
			have += "\n"
		}
		have += string(pem.EncodeToMemory(b))
	})
	return have
}

// joinLists adds the texts of a JSON list that another lacks. One that cannot be read is replaced.
func joinLists(have, more string) string {
	var a, b []string
	if json.Unmarshal([]byte(have), &a) != nil || json.Unmarshal([]byte(more), &b) != nil {
		return more
	}
	added := false
	for _, s := range b {
		if !slices.Contains(a, s) {
			a, added = append(a, s), true
		}
	}
	if !added {
		return have
	}
	text, _ := json.Marshal(a)
	return string(text)
}
