package httpapi

import (
	"net/http"
	"unicode/utf8"

	utilnet "k8s.io/apimachinery/pkg/util/net"
)

// Bounds on the warnings of an answer, in characters: all together, and each once that is exceeded.
const (
	maxWarnings = 4096
	maxWarning  = 256
)

// warnings are the Warning headers of an answer (RFC 9111 as used by KEP-1693), each text once. When they
// grow over maxWarnings, each is cut to maxWarning, those already there too; what then still does not fit is
// dropped, as is a text that a header cannot hold.
type warnings struct {
	texts []string
	seen  map[string]bool
	size  int // characters in the headers
	short bool
}

func (w *warnings) add(h http.Header, text string) {
	if text == "" || w.seen[text] || w.short && w.size >= maxWarnings {
		return
	}
	if w.seen == nil {
		w.seen = map[string]bool{}
	}
	w.seen[text] = true
	w.texts = append(w.texts, text)
	if !w.short && w.size+utf8.RuneCountInString(text) > maxWarnings {
		w.short, w.size = true, 0
		h.Del("Warning")
		for _, text := range w.texts {
			w.write(h, text)
		}
		return
	}
	w.write(h, text)
}

func (w *warnings) write(h http.Header, text string) {
	if runes := []rune(text); w.short && len(runes) > maxWarning {
		text = string(runes[:maxWarning])
	}
	header, err := utilnet.NewWarningHeader(299, "-", text)
	if err != nil {
		return
	}
	w.size += utf8.RuneCountInString(text)
	h.Add("Warning", header)
}
