// Package discovery serves the documents that tell a client what the API has:
// /api, /apis, /apis/<group>, /api/v1, /apis/<group>/<version> (API concepts,
// "API discovery"), the aggregated form of the first two (KEP-3352), and
// /version.
//
// Promises: for one catalogue, the same bytes on every server; each document is
// made at most once, when it is first asked for. A Documents never changes:
// the server swaps it whole when the catalogue changes.
//
// Does not know: the kind catalogue; the server maps it to Groups. Nor does it
// know of requests to resources: a version that another server has is listed,
// and its own document left to the proxy.
//
// Start reading at catalogue.go, then documents.go.
package discovery
