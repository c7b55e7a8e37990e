// Package patch changes objects by patches and keeps track of who owns their fields.
//
// Patches are JSON (RFC 6902), merge (RFC 7386), strategic merge and apply (server-side apply, KEP-555). Each is parsed
// once and can be applied many times, to newer versions of the object after lost races. [Ownership] keeps
// metadata.managedFields: Update after every create, update and patch, Apply for apply.
//
// Promises: results, errors and managedFields are those of kube-apiserver. What gets written is
// byte for byte what k8s.io/apimachinery/pkg/util/managedfields (the reference) writes for the same history;
// the short cuts of this package are tested against it with random histories, and hand over to it
// whatever they do not know. Objects that are passed in are only read, unless a function says so.
//
// Does not know: kinds by name, HTTP, storage, admission. Schemas of built-in kinds are in schema.txt, generated
// from the libraries that clients use, and read type by type on first use; a program that patches nothing pays nothing.
//
// Start reading at ownership.go. How it works: quick.go (update) and apply.go, over layout.go (a Go type seen through the
// schema), diff.go (what changed) and edit.go (changing the FieldsV1 texts); reference.go is the slow and sure way.
package patch
