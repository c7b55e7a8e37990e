package check

import (
	"fmt"
	"net"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	netutils "k8s.io/utils/net"
)

// Family wants an address of the given family. An unparsable one is not of any.
func Family(value string, family corev1.IPFamily, path *field.Path) field.ErrorList {
	switch {
	case family == corev1.IPv4Protocol && !netutils.IsIPv4String(value):
		return field.ErrorList{field.Invalid(path, value, "must be an IPv4 address")}
	case family == corev1.IPv6Protocol && !netutils.IsIPv6String(value):
		return field.ErrorList{field.Invalid(path, value, "must be an IPv6 address")}
	}
	return nil
}

// NotSpecialIP wants an address that can be that of an endpoint outside the node: not unspecified, loopback or link-local.
func NotSpecialIP(value string, path *field.Path) field.ErrorList {
	ip := netutils.ParseIPSloppy(value)
	if ip == nil {
		return field.ErrorList{field.Invalid(path, value, "must be a valid IP address")}
	}
	var errs field.ErrorList
	say := func(bad bool, text string) {
		if bad {
			errs = append(errs, field.Invalid(path, value, text))
		}
	}
	say(ip.IsUnspecified(), fmt.Sprintf("may not be unspecified (%v)", value))
	say(ip.IsLoopback(), "may not be in the loopback range (127.0.0.0/8, ::1/128)")
	say(ip.IsLinkLocalUnicast(), "may not be in the link-local range (169.254.0.0/16, fe80::/10)")
	say(ip.IsLinkLocalMulticast(), "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)")
	return errs
}

// Families reports how many of the addresses or ranges are IPv4 and how many IPv6; those that do
// not parse count for neither.
func Families(values []string) (v4, v6 int) {
	for _, v := range values {
		ip := netutils.ParseIPSloppy(v)
		if ip == nil {
			_, n, err := netutils.ParseCIDRSloppy(v)
			if err != nil {
				continue
			}
			ip = n.IP
		}
		if isV6(ip) {
			v6++
		} else {
			v4++
		}
	}
	return v4, v6
}

func isV6(ip net.IP) bool { return netutils.IsIPv6(ip) }
