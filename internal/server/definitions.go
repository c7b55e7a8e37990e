package server

import (
	"slices"

	"github.com/timonel/timonel/internal/admission"
	"github.com/timonel/timonel/internal/admission/policy"
	"github.com/timonel/timonel/internal/api"
	"github.com/timonel/timonel/internal/api/authentication"
	"github.com/timonel/timonel/internal/api/authorization"
	"github.com/timonel/timonel/internal/api/core"
	"github.com/timonel/timonel/internal/authn"
	"github.com/timonel/timonel/internal/authz"
	"github.com/timonel/timonel/internal/cel/device"
	rules "github.com/timonel/timonel/internal/crd/cel"
	"github.com/timonel/timonel/internal/crd/schema"
	"github.com/timonel/timonel/internal/kind"
)

// definitions lists the built-in kinds that are served.
func (s *Server) definitions(authorizer authz.Authorizer, tokens authentication.Tokens) ([]*kind.Definition, error) {
	o := api.Options{Core: core.Options{
		ServiceCIDRs:    s.serviceRanges,
		NodePorts:       core.PortRange{First: s.nodePorts[0], Last: s.nodePorts[1]},
		AllowPrivileged: s.AllowPrivileged,
		EventTTL:        s.EventTTL,
	}, Gates: s.gates}
	o.Extensions.CheckRules, o.Extensions.CheckDefaults, o.Extensions.Warnings = rules.Check, schema.CheckDefaults, schema.Warnings
	o.Admission.Checker = policy.Checker
	o.Devices.CheckSelector, o.Devices.TooComplex = device.Check, device.ErrTooDear
	if s.Credentials.signer != nil {
		issuer, err := authn.NewIssuer(s.ServiceAccountIssuers[0], s.Credentials.signer)
		if err != nil {
			return nil, err
		}
		issuer.Audiences, issuer.Extend = s.APIAudiences, s.ServiceAccountExtendExpiration
		issuer.MaxExpiration = s.ServiceAccountMaxExpiration
		o.Core.TokenJob = authn.TokenJob(issuer, authn.TokenOptions{Warn: kind.WarnClient})
	}
	all := slices.Concat(api.Groups(o), authentication.Definitions(tokens), authorization.Definitions(authorizer))
	storeAs(all, s.StorageMediaType)
	return api.Served(all, s.gates, s.apis), nil
}

// plugins makes the admission chain of the configuration.
func (s *Server) plugins(authorizer authz.Authorizer) (admission.Chain, error) {
	others := []admission.Plugin{admission.NodeRestriction(s.Engine.Reader(), authorizer)}
	if s.rbac != nil {
		others = append(others, admission.Grants(s.rbac, authorizer))
	}
	all := admission.Builtin(s.Engine.Reader(), admission.BuiltinOptions{
		Shared: s.Engine.Shared(), Objects: s.Engine.Objects(), Authorizer: authorizer, Catalog: s.Catalog, Fresh: s.Engine.Fresh, Others: others,
	})
	return admission.Select(all, s.EnableAdmissionPlugins, s.DisableAdmissionPlugins)
}
