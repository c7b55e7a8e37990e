package encrypt

import (
	"encoding/base64"
	"fmt"
	"strings"
)

// rules are the providers of every resource, made from a configuration. They never change.
type rules struct {
	named   map[Resource]providers
	groups  map[string]providers // "*.group"
	all     providers            // "*.*"
	plugins []*plugin
}

// newRules makes the providers. Plug-ins that keep returns are taken over, the others are new.
func newRules(c *configuration, keep func(kmsConfig) *plugin) (*rules, error) {
	r := &rules{named: map[Resource]providers{}, groups: map[string]providers{}}
	for _, list := range c.Resources {
		all, err := r.providers(list.Providers, keep)
		if err != nil {
			return nil, err
		}
		for _, name := range list.Resources {
			group, wide := strings.CutPrefix(name, "*.")
			switch {
			case name == "*.*":
				r.all = all
			case wide:
				r.groups[group] = all
			default: // named in several lists: the first writes, all read
				resource := ParseResource(name)
				r.named[resource] = append(r.named[resource][:len(r.named[resource]):len(r.named[resource])], all...)
			}
		}
	}
	return r, nil
}

func (r *rules) providers(list []providerConfiguration, keep func(kmsConfig) *plugin) (all providers, err error) {
	for _, p := range list {
		switch {
		case p.AESGCM != nil:
			err = p.AESGCM.each(func(name string, secret []byte) error {
				one, err := newAESGCM(prefix+"aesgcm:v1:"+name+":", secret)
				all = append(all, one)
				return err
			})
		case p.AESCBC != nil:
			err = p.AESCBC.each(func(name string, secret []byte) error {
				one, err := newAESCBC(prefix+"aescbc:v1:"+name+":", secret)
				all = append(all, one)
				return err
			})
		case p.Secretbox != nil:
			err = p.Secretbox.each(func(name string, secret []byte) error {
				all = append(all, newSecretBox(prefix+"secretbox:v1:"+name+":", secret))
				return nil
			})
		case p.Identity != nil:
			all = append(all, identity{})
		case p.KMS != nil:
			one := keep(*p.KMS)
			if one == nil {
				one, err = newPlugin(*p.KMS)
			}
			all = append(all, one)
			r.plugins = append(r.plugins, one)
		}
		if err != nil {
			return nil, err
		}
	}
	return all, nil
}

func (k *keys) each(do func(name string, secret []byte) error) error {
	for _, one := range k.Keys {
		secret, err := base64.StdEncoding.DecodeString(one.Secret)
		if err != nil {
			return fmt.Errorf("key %s: %w", one.Name, err)
		}
		if err := do(one.Name, secret); err != nil {
			return fmt.Errorf("key %s: %w", one.Name, err)
		}
	}
	return nil
}

// plain are the providers of resources without a rule.
var plain = providers{identity{}}

// of returns the providers of a resource; encrypted is false if no rule is about it.
func (r *rules) of(resource Resource, byName bool) (p providers, encrypted bool) {
	if p = r.named[resource]; p != nil {
		return p, true
	}
	if byName {
		return plain, false
	}
	if p = r.groups[resource.Group]; p != nil {
		return p, true
	}
	if r.all != nil {
		return r.all, true
	}
	return plain, false
}
