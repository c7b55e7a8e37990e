package node

import (
	"bufio"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	v1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Limits of resolv.conf(5) and of Kubernetes.
const (
	maxNameservers = 3
	maxSearches    = 32
)

// resolver is the content of a resolv.conf.
type resolver struct{ servers, searches, options []string }

// podDNS is the pod's resolv.conf by its dnsPolicy and dnsConfig. fellBack
// tells that ClusterFirst was asked for and no cluster DNS is known.
func podDNS(pod *v1.Pod, cfg *Config) (dns *runtimeapi.DNSConfig, fellBack bool, err error) {
	policy := pod.Spec.DNSPolicy
	if policy == v1.DNSClusterFirst && pod.Spec.HostNetwork {
		policy = v1.DNSDefault
	}
	if (policy == v1.DNSClusterFirst || policy == v1.DNSClusterFirstWithHostNet) && len(cfg.ClusterDNS) == 0 {
		fellBack, policy = true, v1.DNSDefault
	}
	var r resolver
	switch policy {
	case v1.DNSNone:
	case v1.DNSClusterFirst, v1.DNSClusterFirstWithHostNet:
		host, err := readResolver(cfg.ResolvConf)
		if err != nil {
			return nil, fellBack, err
		}
		r.servers = slices.Clone(cfg.ClusterDNS)
		if domain := cfg.ClusterDomain; domain != "" {
			r.searches = []string{pod.Namespace + ".svc." + domain, "svc." + domain, domain}
		}
		r.searches = appendNew(r.searches, host.searches)
		r.options = []string{"ndots:5"}
	default:
		if r, err = readResolver(cfg.ResolvConf); err != nil {
			return nil, fellBack, err
		}
	}
	if config := pod.Spec.DNSConfig; config != nil {
		r.servers = appendNew(r.servers, config.Nameservers)
		r.searches = appendNew(r.searches, config.Searches)
		r.options = mergeOptions(r.options, config.Options)
	}
	return &runtimeapi.DNSConfig{
		Servers:  r.servers[:min(len(r.servers), maxNameservers)],
		Searches: r.searches[:min(len(r.searches), maxSearches)],
		Options:  r.options,
	}, fellBack, nil
}

func appendNew(list, more []string) []string {
	for _, s := range more {
		if !slices.Contains(list, s) {
			list = append(list, s)
		}
	}
	return list
}

// mergeOptions lets the pod's options replace the like-named ones.
func mergeOptions(options []string, more []v1.PodDNSConfigOption) []string {
	for _, option := range more {
		options = slices.DeleteFunc(options, func(have string) bool {
			name, _, _ := strings.Cut(have, ":")
			return name == option.Name
		})
		if option.Value != nil && *option.Value != "" {
			options = append(options, option.Name+":"+*option.Value)
		} else {
			options = append(options, option.Name)
		}
	}
	return options
}

// readResolver parses a resolv.conf; a path of "" is an empty one.
func readResolver(path string) (resolver, error) {
	var r resolver
	if path == "" {
		return r, nil
	}
	f, err := os.Open(path)
	if err != nil {
		return r, fmt.Errorf("read host's DNS settings: %w", err)
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		if len(fields) < 2 || strings.HasPrefix(fields[0], "#") || strings.HasPrefix(fields[0], ";") {
			continue
		}
		switch fields[0] {
		case "nameserver":
			r.servers = append(r.servers, fields[1])
		case "search", "domain":
			r.searches = nil
			for _, search := range fields[1:] {
				if search != "." {
					search = strings.TrimSuffix(search, ".")
				}
				r.searches = append(r.searches, search)
			}
		case "options":
			r.options = appendNew(r.options, fields[1:])
		}
	}
	return r, nil
}

// writeHosts makes the pod's /etc/hosts and returns its path.
func writeHosts(dir string, pod *v1.Pod, podIPs []string, clusterDomain string) (string, error) {
	var b strings.Builder
	if pod.Spec.HostNetwork {
		host, err := os.ReadFile("/etc/hosts")
		if err != nil {
			return "", fmt.Errorf("read the host's hosts file: %w", err)
		}
		b.WriteString("# Kubernetes-managed hosts file (host network).\n")
		b.Write(host)
	} else {
		b.WriteString("# Kubernetes-managed hosts file.\n" +
			"127.0.0.1\tlocalhost\n" +
			"::1\tlocalhost ip6-localhost ip6-loopback\n" +
			"fe00::0\tip6-localnet\n" +
			"fe00::0\tip6-mcastprefix\n" +
			"fe00::1\tip6-allnodes\n" +
			"fe00::2\tip6-allrouters\n")
		host, domain := hostname(pod, clusterDomain)
		for _, ip := range podIPs {
			if _, err := netip.ParseAddr(ip); err != nil {
				continue
			}
			if domain != "" {
				fmt.Fprintf(&b, "%s\t%s.%s\t%s\n", ip, host, domain, host)
			} else {
				fmt.Fprintf(&b, "%s\t%s\n", ip, host)
			}
		}
	}
	if len(pod.Spec.HostAliases) > 0 {
		b.WriteString("\n# Entries added by HostAliases.\n")
		for _, alias := range pod.Spec.HostAliases {
			fmt.Fprintf(&b, "%s\t%s\n", alias.IP, strings.Join(alias.Hostnames, "\t"))
		}
	}
	file := filepath.Join(dir, "etc-hosts")
	// Written in place: running containers have this very file mounted.
	if err := os.WriteFile(file, []byte(b.String()), 0o644); err != nil {
		return "", fmt.Errorf("write hosts file: %w", err)
	}
	return file, nil
}
