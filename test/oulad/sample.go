package oulad

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
)

// WriteSample writes a small made-up dataset in the real one's format into
// dir: n results and n click rows. Unlike the real one it also has results of
// students without a registration and clicks on sites that nobody knows.
func WriteSample(dir string, seed uint64, n int) error {
	r := rand.New(rand.NewPCG(seed, 0))
	files := map[string]*strings.Builder{}
	line := func(file, format string, args ...any) {
		if files[file] == nil {
			files[file] = &strings.Builder{}
		}
		fmt.Fprintf(files[file], format+"\n", args...)
	}
	line("courses", `"code_module","code_presentation","module_presentation_length"`)
	line("assessments", `"code_module","code_presentation","id_assessment","assessment_type","date","weight"`)
	line("vle", `"id_site","code_module","code_presentation","activity_type","week_from","week_to"`)
	line("studentRegistration", `"code_module","code_presentation","id_student","date_registration","date_unregistration"`)
	line("studentAssessment", "id_assessment,id_student,date_submitted,is_banked,score")
	line("studentVle", "code_module,code_presentation,id_student,id_site,date,sum_click")
	presentations := []presentation{{"XXX", "2013J"}, {"XXX", "2014B"}, {"YYY", "2013J"}}
	for i, p := range presentations {
		line("courses", `"%s","%s","268"`, p.module, p.name)
		for j := range 5 {
			line("assessments", `"%s","%s","%d","TMA","%d","20"`, p.module, p.name, 100*i+j, 30*j)
			line("vle", `"%d","%s","%s","resource","",""`, 10_000+100*i+j, p.module, p.name)
		}
		for student := range 40 {
			line("studentRegistration", `"%s","%s","%d","-20",""`, p.module, p.name, 1000+student)
		}
	}
	for range n {
		i := r.IntN(len(presentations))
		score := [...]string{"", "0", "39", "40", "100", "?"}[r.IntN(6)]
		banked, day := r.IntN(10)/9, r.IntN(280)-10
		line("studentAssessment", "%d,%d,%d,%d,%s", 100*i+r.IntN(5), 1000+r.IntN(42), day, banked, score)
	}
	for day := range n {
		i := r.IntN(len(presentations))
		p := presentations[i]
		line("studentVle", "%s,%s,%d,%d,%d,3", p.module, p.name, 1000+r.IntN(41), 10_000+100*i+r.IntN(6), day*280/n-10)
	}
	for file, text := range files {
		if err := os.WriteFile(filepath.Join(dir, file+".csv"), []byte(text.String()), 0o644); err != nil {
			return err
		}
	}
	return nil
}
