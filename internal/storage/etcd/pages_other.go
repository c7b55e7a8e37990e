//go:build !linux

package etcd

// pages is what it is on Linux; elsewhere the kernel is left to it.
type pages struct{}

func findPages(string) *pages { return nil }

func (p *pages) touched(int) {}
func (p *pages) release()    {}
