package main

import (
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// The stories of testdata/script run this very binary, as a command called
// learnsink: what they see is what a user sees.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"learnsink": main,
	})
}

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 filepath.Join("testdata", "script"),
		RequireExplicitExec: true,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"code":     code,
			"encoded":  encoded,
			"jsonsame": jsonSame,
		},
	})
}
