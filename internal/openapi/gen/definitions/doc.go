// Package definitions holds GetOpenAPIDefinitions, written by command define
// and not kept in the repository.
package definitions
