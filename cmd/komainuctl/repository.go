package main

import (
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"komainu/control/client"
	"komainu/fault"
)

func (a *app) repositoryCommands() *cobra.Command {
	return group("repository", "The signed repository that packages of the agent come from", a.listPackages(), a.addPackages(), a.removePackages(), a.rotateRepository())
}

func (a *app) listPackages() *cobra.Command {
	return &cobra.Command{Use: "list", Short: "List the packages, the newest version first", Args: exactly(0), RunE: a.with(func(c *cobra.Command, api *client.Client, _ []string) error {
		r, err := api.Repository(c.Context())
		if err != nil {
			return err
		}
		if err := showRepository(a, r); err != nil {
			return err
		}
		if a.format == "table" {
			fmt.Fprintf(c.ErrOrStderr(), "root %d until %s, timestamp until %s\n", r.Root.Version, r.Root.Expires.Format(time.DateOnly), r.Timestamp.Expires.Format(time.DateTime))
		}
		if r.Problem != "" {
			fmt.Fprintln(c.ErrOrStderr(), cells(r.Problem))
		}
		return nil
	})}
}

func showRepository(a *app, r client.Repository) error {
	return show(a, r, r.Packages, "VERSION\tFORM\tARCH\tMB\tADDED\tSHA-256", func(p client.Package) string {
		return cells(p.Version, p.Format, p.Arch, fmt.Sprintf("%.1f", float64(p.Size)/1e6), p.AddedAt, p.SHA256)
	})
}

func (a *app) addPackages() *cobra.Command {
	return &cobra.Command{Use: "add FILE...", Short: "Add packages of the agent: .deb, .rpm and .tar.gz files", Args: cobra.ArbitraryArgs, RunE: a.with(func(c *cobra.Command, api *client.Client, files []string) error {
		if len(files) == 0 {
			return fault.New(fault.Invalid, "name the files of packages")
		}
		for _, file := range files {
			f, err := os.Open(file)
			if err != nil {
				return fault.Wrap(fault.NotFound, err, "read the package")
			}
			isNew, err := api.AddPackage(c.Context(), filepath.Base(file), f)
			f.Close()
			if err != nil {
				return fault.Wrap(fault.KindOf(err), err, "%s was not added", filepath.Base(file))
			}
			if isNew {
				fmt.Fprintf(c.ErrOrStderr(), "%s added\n", cells(filepath.Base(file)))
			} else {
				fmt.Fprintf(c.ErrOrStderr(), "%s is there already\n", cells(filepath.Base(file)))
			}
		}
		return nil
	})}
}

func (a *app) removePackages() *cobra.Command {
	return &cobra.Command{Use: "remove VERSION", Short: "Take a version out of the repository", Args: exactly(1), RunE: a.with(func(c *cobra.Command, api *client.Client, args []string) error {
		n, err := api.RemovePackages(c.Context(), args[0])
		if err != nil {
			return err
		}
		fmt.Fprintf(c.ErrOrStderr(), "version %s is not offered any more (%d packages)\n", cells(args[0]), n)
		return nil
	})}
}

func (a *app) rotateRepository() *cobra.Command {
	return &cobra.Command{Use: "rotate", Short: "Replace the keys that sign the repository; agents follow by themselves", Args: exactly(0), RunE: a.with(func(c *cobra.Command, api *client.Client, _ []string) error {
		r, err := api.RotateRepository(c.Context())
		if err != nil {
			return err
		}
		fmt.Fprintf(c.ErrOrStderr(), "the keys were replaced; the root is version %d. Make a backup now: an older one has the old keys, which agents refuse\n", r.Root.Version)
		return nil
	})}
}
