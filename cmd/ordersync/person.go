package main

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"strings"

	"golang.org/x/term"
)

// person is who the audit names: the one given, or the user of this machine, or who the person at the
// terminal says to be. Where none of them is known, a command that acts does not act.
func (a *app) person(ctx context.Context, given string) (string, error) {
	if given = strings.TrimSpace(given); given != "" {
		return given, nil
	}
	if known := a.knownPerson(); known != "" {
		return known, nil
	}
	if a.interactive() {
		name, err := a.ask(ctx, "who are you? the audit should say: ")
		if err != nil || name != "" {
			return name, err
		}
	}
	return "", errors.New("who does this? the audit should say, and the account here is no person's: " +
		"give --by NAME, or once for this shell: export USER=NAME")
}

// knownPerson is the user of this machine, empty where it is not known.
func (a *app) knownPerson() string {
	account := ""
	if u, err := user.Current(); err == nil {
		account = u.Username
	}
	name := userName(a.environ, inContainer(a.environ), os.Getuid() == 0, account)
	if name == "" {
		return ""
	}
	if host, err := os.Hostname(); err == nil {
		name += "@" + host
	}
	return name
}

// userName is the name of the person who types, empty where it is not known: in a container the account is
// that of the image, whoever has a shell in it.
func userName(environ map[string]string, container, root bool, account string) string {
	if sudo := environ["SUDO_USER"]; root && sudo != "" {
		account = sudo
	}
	if !container {
		if account == "" {
			account = cmp.Or(environ["USER"], environ["LOGNAME"])
		}
		return account
	}
	name := cmp.Or(environ["SUDO_USER"], environ["USER"], environ["LOGNAME"])
	switch name {
	case "root", "nonroot", "nobody":
		return ""
	}
	return name
}

// inContainer returns whether this is a container, as Kubernetes, Docker and Podman mark them.
func inContainer(environ map[string]string) bool {
	if environ["KUBERNETES_SERVICE_HOST"] != "" {
		return true
	}
	for _, mark := range []string{"/.dockerenv", "/run/.containerenv"} {
		if _, err := os.Stat(mark); !errors.Is(err, fs.ErrNotExist) {
			return true
		}
	}
	return false
}

// interactive returns whether there is a person to ask.
func (a *app) interactive() bool {
	file, ok := a.stdin.(*os.File)
	return ok && term.IsTerminal(int(file.Fd()))
}

// ask puts a question to the person at the terminal.
func (a *app) ask(ctx context.Context, question string) (string, error) {
	if a.answers == nil {
		a.answers = bufio.NewReader(a.stdin)
	}
	fmt.Fprint(a.stderr, question)
	type line struct {
		text string
		err  error
	}
	answer := make(chan line, 1)
	go func() {
		text, err := a.answers.ReadString('\n')
		answer <- line{text, err}
	}()
	select {
	case l := <-answer:
		if l.err != nil && l.text == "" {
			return "", fmt.Errorf("no answer was given: %w", l.err)
		}
		return strings.TrimSpace(l.text), nil
	case <-ctx.Done():
		return "", errors.New("interrupted; nothing was done")
	}
}

// errDeclined is the error of a command whose person answered no.
var errDeclined = errors.New("nothing was done")

// confirm asks whether to go on.
func (a *app) confirm(ctx context.Context, question string) error {
	answer, err := a.ask(ctx, question+" [y/N] ")
	if err != nil {
		return err
	}
	switch strings.ToLower(answer) {
	case "y", "yes":
		return nil
	}
	return errDeclined
}
