package server

import (
	"context"
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/timonel/timonel/internal/kind"
)

// Values of --storage-media-type.
const (
	mediaProtobuf = "application/vnd.kubernetes.protobuf"
	mediaJSON     = "application/json"
)

// checkStorageFlags says what is wrong with the flags about etcd.
func (c *Config) checkStorageFlags() (problems []string) {
	bad := func(format string, args ...any) { problems = append(problems, fmt.Sprintf(format, args...)) }
	if len(c.EtcdServersOverrides) > 0 {
		bad("--etcd-servers-overrides is not supported: all resources are in the etcd of --etcd-servers, so that one revision says how fresh everything is")
	}
	if c.StorageBackend != "" && c.StorageBackend != "etcd3" {
		bad("--storage-backend invalid, allowed values: etcd3. If not specified, it will default to 'etcd3'")
	}
	if c.StorageMediaType != mediaProtobuf && c.StorageMediaType != mediaJSON {
		bad("--storage-media-type %q invalid, allowed values: %s, %s", c.StorageMediaType, mediaJSON, mediaProtobuf)
	}
	if c.EtcdLeaseReuse <= 0 {
		bad("--lease-reuse-duration-seconds %d is not positive", c.EtcdLeaseReuse)
	}
	return problems
}

// storeAs chooses how built-in kinds are stored.
func storeAs(definitions []*kind.Definition, media string) {
	if media != mediaJSON {
		return
	}
	for _, d := range definitions {
		d.Stored.Encoding = kind.JSON
	}
}

// storeMetrics tells, when asked, how much is stored. Nothing is counted meanwhile.
type storeMetrics struct{ *Server }

var (
	objectsMetric = prometheus.NewDesc("apiserver_resource_objects", "[ALPHA] Objects that are stored, by resource.", []string{"group", "resource"}, nil)
	sizeMetric    = prometheus.NewDesc("apiserver_storage_size_bytes", "[STABLE] Size of the storage database file physically allocated in bytes.", []string{"storage_cluster_id"}, nil)
)

func (m *storeMetrics) Describe(out chan<- *prometheus.Desc) {
	out <- objectsMetric
	out <- sizeMetric
}

func (m *storeMetrics) Collect(out chan<- prometheus.Metric) {
	if m.EtcdCountMetric > 0 {
		for _, d := range m.Catalog.Catalog().Stored() {
			if view := m.Engine.View(d); view != nil {
				out <- prometheus.MustNewConstMetric(objectsMetric, prometheus.GaugeValue, float64(view.Len()), d.Group, d.Plural)
			}
		}
	}
	if m.EtcdSizeMetric > 0 {
		ctx, cancel := context.WithTimeout(context.Background(), m.EtcdHealthTimeout)
		defer cancel()
		if size, err := m.etcd.Size(ctx); err == nil {
			out <- prometheus.MustNewConstMetric(sizeMetric, prometheus.GaugeValue, float64(size), "etcd-0")
		}
	}
}
