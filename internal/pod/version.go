package pod

import "runtime/debug"

// version is set when an image is built (-ldflags "-X ordersync/internal/pod.version=…").
var version string

// Version names the build: the version it was given, or the commit it was made from.
func Version() string {
	if version != "" {
		return version
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	commit, modified := "", ""
	for _, s := range info.Settings {
		switch {
		case s.Key == "vcs.revision":
			commit = s.Value
		case s.Key == "vcs.modified" && s.Value == "true":
			modified = "+modified"
		}
	}
	if commit == "" {
		return "unknown"
	}
	return commit[:min(12, len(commit))] + modified
}
