package metrics

import (
	"iter"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/timonel/timonel/internal/feature"
)

// features tells which feature gates are on. It holds nothing: the values are made when somebody asks.
type features struct {
	gates iter.Seq2[feature.Named, bool]
	desc  *prometheus.Desc
}

// Features are the values of feature gates as a metric.
func Features(gates iter.Seq2[feature.Named, bool]) prometheus.Collector {
	return &features{gates, prometheus.NewDesc("kubernetes_feature_enabled", "[BETA] Whether a feature gate is on.", []string{"name", "stage"}, nil)}
}

func (f *features) Describe(c chan<- *prometheus.Desc) { c <- f.desc }

func (f *features) Collect(c chan<- prometheus.Metric) {
	for gate, on := range f.gates {
		value := 0.0
		if on {
			value = 1
		}
		c <- prometheus.MustNewConstMetric(f.desc, prometheus.GaugeValue, value, gate.Name, gate.Stage)
	}
}
