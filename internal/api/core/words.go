package core

import (
	"time"

	corev1 "k8s.io/api/core/v1"
)

// protocols are those that ports can have, in the order in which answers list them.
var protocols = []corev1.Protocol{corev1.ProtocolSCTP, corev1.ProtocolTCP, corev1.ProtocolUDP}

// timestampForm is the form of a time in an annotation.
func timestampForm(value string) []string {
	if _, err := time.Parse(time.RFC3339Nano, value); err != nil {
		return []string{err.Error()}
	}
	return nil
}
