package devstack

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// startStranger runs a process with dir on its command line, and what a start would know it by.
func startStranger(t *testing.T, dir string) (*child, <-chan struct{}) {
	t.Helper()
	cmd := exec.Command("sh", "-c", "read line", dir)
	_, err := cmd.StdinPipe() // nothing comes, so it waits
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	ended := make(chan struct{})
	go func() { _ = cmd.Wait(); close(ended) }()
	t.Cleanup(func() { _ = cmd.Process.Kill(); <-ended })
	return &child{cmd: cmd, pidFile: filepath.Join(t.TempDir(), "mysql.pid")}, ended
}

func TestLeftoverIsEnded(t *testing.T) {
	dir := t.TempDir()
	c, ended := startStranger(t, dir)
	require.NoError(t, c.writePidFile())
	require.NoError(t, endLeftover(c.pidFile, dir))
	<-ended
}

func TestStrangersAreLeftAlone(t *testing.T) {
	dir := t.TempDir()
	alive := func(c *child) {
		_, ok := lookUp(c.cmd.Process.Pid)
		require.True(t, ok)
	}
	t.Run("another command", func(t *testing.T) {
		c, _ := startStranger(t, "/some/other/directory")
		require.NoError(t, c.writePidFile())
		require.NoError(t, endLeftover(c.pidFile, dir))
		alive(c)
	})
	t.Run("another start time", func(t *testing.T) {
		c, _ := startStranger(t, dir)
		require.NoError(t, c.writePidFile())
		text, err := os.ReadFile(c.pidFile)
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(c.pidFile, append(text[:len(text)-3], []byte("9\"}\n")...), 0o600))
		require.NoError(t, endLeftover(c.pidFile, dir))
		alive(c)
	})
}

func TestOlder(t *testing.T) {
	require.True(t, older("1.28.9", "1.29"))
	require.True(t, older("1.9.0", "1.29"))
	require.False(t, older("1.29.0", "1.29"))
	require.False(t, older("2.0", "1.29"))
}
