// Package openapi serves the OpenAPI documents of the API: /openapi/v2,
// /openapi/v3 and /openapi/v3/<path> (KEP-2896, swagger 2.0, OpenAPI 3.0).
//
// Promises: the documents of built-in kinds are made when the program is built
// and embedded compressed; nothing is read, decompressed or started before the
// first request, and nothing but a small index stays after it. A client that
// accepts gzip gets the embedded bytes as they are. Custom resources are
// spliced in when somebody asks.
//
// Does not know: the kind catalogue, CRD objects, the storage. The server tells
// it of custom resources through Documents.Set.
//
// Start reading at documents.go; gen/ writes the files under documents/.
package openapi

//go:generate sh -c "cd gen && go run ./define && go run ./build ../documents"
