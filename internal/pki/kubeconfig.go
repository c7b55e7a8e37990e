package pki

import (
	"fmt"

	clientcmdv1 "k8s.io/client-go/tools/clientcmd/api/v1"
	"sigs.k8s.io/yaml"
)

// Kubeconfig is what a client needs to reach an API server
// (docs: "Organizing Cluster Access Using kubeconfig Files").
type Kubeconfig struct {
	Server  string // e.g. "https://127.0.0.1:6443"
	Cluster string // the cluster's name in the file; default "kubernetes"
	User    string // the user's name in the file
	CA      *Pair
	Client  *Pair  // certificate and key, put into the file; nil with Token
	Token   string // a bearer token instead
}

// Bytes is the file's content, YAML.
func (k *Kubeconfig) Bytes() ([]byte, error) {
	cluster := k.Cluster
	if cluster == "" {
		cluster = "kubernetes"
	}
	name := k.User + "@" + cluster
	auth := clientcmdv1.AuthInfo{Token: k.Token}
	if k.Client != nil {
		auth.ClientCertificateData, auth.ClientKeyData = k.Client.CertPEM, k.Client.KeyPEM
	}
	data, err := yaml.Marshal(clientcmdv1.Config{
		APIVersion: "v1",
		Kind:       "Config",
		Clusters: []clientcmdv1.NamedCluster{{Name: cluster,
			Cluster: clientcmdv1.Cluster{Server: k.Server, CertificateAuthorityData: k.CA.CertPEM}}},
		AuthInfos:      []clientcmdv1.NamedAuthInfo{{Name: k.User, AuthInfo: auth}},
		Contexts:       []clientcmdv1.NamedContext{{Name: name, Context: clientcmdv1.Context{Cluster: cluster, AuthInfo: k.User}}},
		CurrentContext: name,
	})
	if err != nil {
		return nil, fmt.Errorf("encode kubeconfig of %s: %w", k.User, err)
	}
	return data, nil
}

// Write replaces the file, readable by its owner only, unless it holds the same already.
func (k *Kubeconfig) Write(path string) error {
	data, err := k.Bytes()
	if err != nil {
		return err
	}
	return writeChanged(path, data, 0o600)
}
