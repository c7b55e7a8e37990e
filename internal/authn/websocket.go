package authn

import (
	"encoding/base64"
	"net/http"
	"strings"
	"unicode/utf8"
)

func isWebSocket(r *http.Request) bool {
	return hasToken(r.Header["Connection"], "upgrade") && hasToken(r.Header["Upgrade"], "websocket")
}

// hasToken reports whether a comma-separated header has the token, in any case.
func hasToken(values []string, token string) bool {
	for _, value := range values {
		for part := range strings.SplitSeq(value, ",") {
			if strings.EqualFold(strings.TrimSpace(part), token) {
				return true
			}
		}
	}
	return false
}

// protocolToken returns the token among the offered subprotocols. It counts only beside another
// subprotocol, since the server must be able to choose one that is not the token; and only if it is the only one.
func protocolToken(values []string) string {
	token, others := "", 0
	for _, value := range values {
		for part := range strings.SplitSeq(value, ",") {
			encoded, ok := strings.CutPrefix(strings.TrimSpace(part), protocolPrefix)
			if !ok {
				others++
				continue
			}
			decoded, err := base64.RawURLEncoding.DecodeString(encoded)
			if err != nil || !utf8.Valid(decoded) || token != "" {
				return ""
			}
			token = string(decoded)
		}
	}
	if others == 0 {
		return ""
	}
	return token
}

// removeProtocolToken leaves the other subprotocols in the header.
func removeProtocolToken(h http.Header) {
	var kept []string
	for _, value := range h[protocolHeader] {
		for part := range strings.SplitSeq(value, ",") {
			if part = strings.TrimSpace(part); !strings.HasPrefix(part, protocolPrefix) {
				kept = append(kept, part)
			}
		}
	}
	h[protocolHeader] = []string{strings.Join(kept, ",")}
}
