// Package crd makes kinds at run time: a CustomResourceDefinition becomes a kind.Definition for each
// version that it serves (apiextensions.k8s.io/v1, KEP-95).
//
// Promises: a definition that nobody uses costs its names: the schema stays in the bytes of the watch cache until the first
// request for its kind compiles it. Objects are pruned, defaulted and validated by the schema of the version of
// the request. What a definition's status says is decided by the names that are taken, alike on every server.
//
// Does not know: HTTP; how the CustomResourceDefinition kind itself is validated and stored (api/apiextensions).
// Start reading at Definitions, then Registry.
package crd
