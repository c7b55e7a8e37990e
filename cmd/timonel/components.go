package main

import (
	"fmt"

	"github.com/spf13/cobra"
	"github.com/timonel/timonel/internal/controller"
	"github.com/timonel/timonel/internal/feature"
	"github.com/timonel/timonel/internal/scheduler"
	"github.com/timonel/timonel/internal/server"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// clientFrom makes a component's client from a kubeconfig; the usual places are searched when none is given.
func clientFrom(kubeconfig, agent string) (kubernetes.Interface, *rest.Config, error) {
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = kubeconfig
	config, err := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, nil).ClientConfig()
	if err != nil {
		return nil, nil, fmt.Errorf("read kubeconfig: %w", err)
	}
	return server.NewClient(config, agent)
}

// component is a command that runs one component as an ordinary process with a kubeconfig.
func component(use, short string, run func(c *cobra.Command, kubeconfig string, v int) error) *cobra.Command {
	var kubeconfig string
	var v int
	c := &cobra.Command{
		Use: use, Short: short, Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return run(c, kubeconfig, v) },
	}
	c.Flags().StringVar(&kubeconfig, "kubeconfig", "", "Credentials and address of the API server.")
	c.Flags().IntVarP(&v, "v", "v", 0, "Log level: 0 warnings, 1 information, 2 everything.")
	return c
}

func controllersCommand() *cobra.Command {
	var flags []string
	c := component("controllers", "Run the controllers alone", func(c *cobra.Command, kubeconfig string, v int) error {
		gates, err := feature.ParseGates(flags)
		if err != nil {
			return fmt.Errorf("--feature-gates: %w", err)
		}
		client, config, err := clientFrom(kubeconfig, "kube-controller-manager")
		if err != nil {
			return err
		}
		all, err := controller.New(client, config, controller.Config{
			RootCA: config.CAData, StorageVersions: gates.Enabled("StorageVersionAPI"), Log: verbosity(v),
		})
		if err != nil {
			return err
		}
		return all.Run(c.Context())
	})
	c.Flags().StringSliceVar(&flags, "feature-gates", nil, "Features to switch on or off, as those of the API server: name=true|false.")
	return c
}

func schedulerCommand() *cobra.Command {
	return component("scheduler", "Run the scheduler alone", func(c *cobra.Command, kubeconfig string, v int) error {
		client, _, err := clientFrom(kubeconfig, "kube-scheduler")
		if err != nil {
			return err
		}
		return scheduler.New(client, scheduler.Config{Logger: verbosity(v)}).Run(c.Context())
	})
}
