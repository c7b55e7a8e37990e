package podspec

import (
	"fmt"

	"github.com/timonel/timonel/internal/api/check"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// handler is what a probe or a lifecycle hook can do: at most one of these.
type handler struct {
	exec  *corev1.ExecAction
	http  *corev1.HTTPGetAction
	tcp   *corev1.TCPSocketAction
	grpc  *corev1.GRPCAction
	sleep *corev1.SleepAction
}

func (c *checker) checkHandler(h handler, path *field.Path) field.ErrorList {
	one := check.Choice{At: path, Of: "handler type"}
	one.See(h.exec != nil, "exec", func(at *field.Path) field.ErrorList {
		if len(h.exec.Command) == 0 {
			return field.ErrorList{field.Required(at.Child("command"), "")}
		}
		return nil
	})
	one.See(h.http != nil, "httpGet", func(at *field.Path) field.ErrorList { return checkHTTPGet(h.http, at) })
	one.See(h.tcp != nil, "tcpSocket", func(at *field.Path) field.ErrorList { return PortOrName(h.tcp.Port, at.Child("port")) })
	one.See(h.grpc != nil, "grpc", func(at *field.Path) field.ErrorList { return check.Port(h.grpc.Port, at.Child("port")) })
	one.See(h.sleep != nil, "sleep", func(at *field.Path) field.ErrorList { return c.checkSleep(h.sleep, at) })
	return one.Required()
}

func checkHTTPGet(h *corev1.HTTPGetAction, at *field.Path) field.ErrorList {
	errs := check.Required(h.Path, at.Child("path"))
	errs = append(errs, PortOrName(h.Port, at.Child("port"))...)
	errs = append(errs, check.OneOf(h.Scheme, at.Child("scheme"), corev1.URISchemeHTTP, corev1.URISchemeHTTPS)...)
	for _, header := range h.HTTPHeaders {
		errs = append(errs, check.Each(at.Child("httpHeaders"), header.Name, validation.IsHTTPHeaderName(header.Name))...)
	}
	return errs
}

func (c *checker) checkSleep(s *corev1.SleepAction, at *field.Path) field.ErrorList {
	if c.spec.TerminationGracePeriodSeconds == nil {
		return nil
	}
	if grace := *c.spec.TerminationGracePeriodSeconds; s.Seconds < 0 || s.Seconds > grace {
		return field.ErrorList{field.Invalid(at, s.Seconds, fmt.Sprintf("must be non-negative and less than or equal to terminationGracePeriodSeconds (%d)", grace))}
	}
	return nil
}

// PortOrName wants a port number or the name of a port.
func PortOrName(p intstr.IntOrString, path *field.Path) field.ErrorList {
	if p.Type == intstr.Int {
		return check.Each(path, p.IntValue(), validation.IsValidPortNum(p.IntValue()))
	}
	return check.Each(path, p.StrVal, validation.IsValidPortName(p.StrVal))
}

func (c *checker) checkLifecycle(l *corev1.Lifecycle, path *field.Path) field.ErrorList {
	if l == nil {
		return nil
	}
	var errs field.ErrorList
	hook := func(h *corev1.LifecycleHandler, name string) {
		if h != nil {
			errs = append(errs, c.checkHandler(handler{exec: h.Exec, http: h.HTTPGet, tcp: h.TCPSocket, sleep: h.Sleep}, path.Child(name))...)
		}
	}
	hook(l.PostStart, "postStart")
	hook(l.PreStop, "preStop")
	return errs
}

func (c *checker) checkProbes(ctr *corev1.Container, at *field.Path) field.ErrorList {
	liveness, readiness, startup := at.Child("livenessProbe"), at.Child("readinessProbe"), at.Child("startupProbe")
	errs := c.checkProbe(ctr.LivenessProbe, liveness)
	errs = append(errs, onlyOneSuccess(ctr.LivenessProbe, liveness)...)
	errs = append(errs, c.checkProbe(ctr.ReadinessProbe, readiness)...)
	if p := ctr.ReadinessProbe; p != nil && p.TerminationGracePeriodSeconds != nil {
		errs = append(errs, field.Invalid(readiness.Child("terminationGracePeriodSeconds"), p.TerminationGracePeriodSeconds, "must not be set for readinessProbes"))
	}
	errs = append(errs, c.checkProbe(ctr.StartupProbe, startup)...)
	return append(errs, onlyOneSuccess(ctr.StartupProbe, startup)...)
}

func (c *checker) checkProbe(p *corev1.Probe, path *field.Path) field.ErrorList {
	if p == nil {
		return nil
	}
	errs := c.checkHandler(handler{exec: p.Exec, http: p.HTTPGet, tcp: p.TCPSocket, grpc: p.GRPC}, path)
	errs = append(errs, check.NonNegative(p.InitialDelaySeconds, path.Child("initialDelaySeconds"))...)
	errs = append(errs, check.NonNegative(p.TimeoutSeconds, path.Child("timeoutSeconds"))...)
	errs = append(errs, check.NonNegative(p.PeriodSeconds, path.Child("periodSeconds"))...)
	errs = append(errs, check.NonNegative(p.SuccessThreshold, path.Child("successThreshold"))...)
	errs = append(errs, check.NonNegative(p.FailureThreshold, path.Child("failureThreshold"))...)
	return append(errs, check.PositivePtr(p.TerminationGracePeriodSeconds, path.Child("terminationGracePeriodSeconds"))...)
}

func onlyOneSuccess(p *corev1.Probe, path *field.Path) field.ErrorList {
	if p == nil || p.SuccessThreshold == 1 {
		return nil
	}
	return field.ErrorList{field.Invalid(path.Child("successThreshold"), p.SuccessThreshold, "must be 1")}
}
