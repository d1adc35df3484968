package handlers

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
)

// written shows settings in one line each.
func written(settings []Setting) string {
	var b strings.Builder
	for _, s := range settings {
		fmt.Fprintf(&b, "%d %s=%s", s.Line, s.Name, s.Text)
		for _, w := range s.Words {
			fmt.Fprintf(&b, " %d %s:%s", w.Line, w.Name, w.Text)
		}
		b.WriteByte('\n')
	}
	return b.String()
}

const vendorExample = `<?xml version="1.0" encoding="UTF-8"?>
<import-config>
	<delimiter>;</delimiter>
	<actions>
		<createOrUpdateUserAction><options><anything twice="1"/></options><options/></createOrUpdateUserAction>
		<createOrUpdateConsolidatedTrackingAction>
			<options>
				<defaultScoreMax>20</defaultScoreMax>
			</options>
			<fields>
				<candidateLogin><mandatory>yes</mandatory></candidateLogin>
				<lovCode/> <!-- use Code or Guid -->
				<score>
					<mandatory>no</mandatory>
				</score>
				<trackingStatus/>
			</fields>
			<parameters>
				<timeZone>America/Sao_Paulo</timeZone>
				<dateTimeFormat><![CDATA[YYYY-MM-DD HH:II:SS]]></dateTimeFormat>
				<trackingStatus>
					<notAttempted>n</notAttempted>
					<incomplete/>
					<completed>c</completed>
				</trackingStatus>
			</parameters>
		</createOrUpdateConsolidatedTrackingAction>
	</actions>
</import-config>
`

func TestParseXML(t *testing.T) {
	const wanted = `8 defaultScoreMax=20
10 fields= 11 :candidateLogin 12 :lovCode 13 :score 16 :trackingStatus
10 mandatory= 11 :candidateLogin
19 timeZone=America/Sao_Paulo
20 dateTimeFormat=YYYY-MM-DD HH:II:SS
21 trackingStatus= 22 notAttempted:n 23 incomplete: 24 completed:c
`
	inFields := `<actions><createOrUpdateInterventionAction><fields>
<interventionGuid/><interventionStatus><active>on</active><mandatory>yes</mandatory><cancelled>off</cancelled></interventionStatus>
</fields></createOrUpdateInterventionAction></actions>`
	const inFieldsWanted = "1 fields= 2 :interventionGuid 2 :interventionStatus\n"
	scalar := "1 timeZone=UTC\n"
	for _, c := range []struct {
		name   string
		action Action
		file   string
		want   string
	}{
		{"the vendor's example", Tracking, vendorExample, wanted},
		{"a byte order mark", Tracking, "\xef\xbb\xbf" + vendorExample, wanted},
		{"words of a status within fields", Intervention, inFields,
			"2 interventionStatus= 2 active:on 2 cancelled:off\n" + inFieldsWanted + "1 mandatory= 2 :interventionStatus\n"},
		{"the action as root", Tracking, `<createOrUpdateConsolidatedTrackingAction/>`, ""},
		{"an action by its attribute", Tracking, `<a><action name="x"/><action name="createOrUpdateConsolidatedTrackingAction"><options><timeZone>UTC</timeZone></options></action></a>`, scalar},
		{"an action by its element", Tracking, `<a><action><name>createOrUpdateConsolidatedTrackingAction</name><options><timeZone>UTC</timeZone></options></action></a>`, scalar},
		{"an action by its text", Tracking, `<a><action>createOrUpdateConsolidatedTrackingAction<options><timeZone>UTC</timeZone></options></action></a>`, scalar},
		{"a namespace", Tracking, `<v:createOrUpdateConsolidatedTrackingAction xmlns:v="urn:x"><v:options><v:timeZone>UTC</v:timeZone></v:options></v:createOrUpdateConsolidatedTrackingAction>`, scalar},
		{"field elements", Tracking, `<createOrUpdateConsolidatedTrackingAction><fields>
<field>score</field><field name="lovGuid" mandatory="yes"/><field><name>lovCode</name><mandatory>yes</mandatory></field><field name="trackingStatus"><passed>p</passed></field>
</fields></createOrUpdateConsolidatedTrackingAction>`,
			"2 trackingStatus= 2 passed:p\n1 fields= 2 :score 2 :lovGuid 2 :lovCode 2 :trackingStatus\n1 mandatory= 2 :lovGuid 2 :lovCode\n"},
		{"no fields in the list", Tracking, `<createOrUpdateConsolidatedTrackingAction><fields/></createOrUpdateConsolidatedTrackingAction>`, ""},
		{"ours", Tracking, `<createOrUpdateConsolidatedTrackingAction><parameters><strictDates>yes</strictDates>
<ignoredColumns>a, b</ignoredColumns><tombstones>ignore</tombstones></parameters><options><completionDefault>today</completionDefault></options></createOrUpdateConsolidatedTrackingAction>`,
			"1 strictDates=yes\n2 ignoredColumns= 2 :a 2 :b\n2 tombstones=ignore\n2 completionDefault=today\n"},
		{"a list of elements", Intervention, `<createOrUpdateInterventionAction><options><ignoredColumns><column>a, b</column><column>c</column></ignoredColumns></options></createOrUpdateInterventionAction>`,
			"1 ignoredColumns= 1 :a, b 1 :c\n"},
		{"an empty value", Tracking, `<createOrUpdateConsolidatedTrackingAction><options><timeZone/></options></createOrUpdateConsolidatedTrackingAction>`, "1 timeZone=\n"},
		{"latin1", Intervention, "<?xml version='1.0' encoding='ISO-8859-1'?><createOrUpdateInterventionAction><parameters><interventionStatus><cancelled>annul\xe9</cancelled></interventionStatus></parameters></createOrUpdateInterventionAction>",
			"1 interventionStatus= 1 cancelled:annulé\n"},
		{"windows-1252", Intervention, "<?xml version='1.0' encoding='Windows-1252'?><createOrUpdateInterventionAction><parameters><interventionStatus><cancelled>\x80 annul\xe9\x85</cancelled></interventionStatus></parameters></createOrUpdateInterventionAction>",
			"1 interventionStatus= 1 cancelled:€ annulé…\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			settings, err := ParseXML(c.action, []byte(c.file))
			if err != nil {
				t.Fatal(err)
			}
			if got := written(settings); got != c.want {
				t.Errorf("got\n%s\nwant\n%s", got, c.want)
			}
			if c.name == "an empty value" {
				return
			}
			if _, err := Compile(c.action, settings); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestXMLIsWorthYAML: the same settings, whichever way they are written, have one hash.
func TestXMLIsWorthYAML(t *testing.T) {
	settings, err := ParseXML(Tracking, []byte(vendorExample))
	if err != nil {
		t.Fatal(err)
	}
	yaml := []Setting{setting("defaultScoreMax", "20"), listed("fields", "candidateLogin", "lovCode", "score", "trackingStatus"), listed("mandatory", "candidateLogin"),
		setting("timeZone", "America/Sao_Paulo"), setting("dateTimeFormat", "YYYY-MM-DD hh:ii:ss"), mapped("trackingStatus", "notAttempted", "n", "completed", "c")}
	if compiled(t, Tracking, settings...).Hash() != compiled(t, Tracking, yaml...).Hash() {
		t.Error("another hash")
	}
}

func TestParseXMLFaults(t *testing.T) {
	within := func(s string) string {
		return "<actions>\n<createOrUpdateConsolidatedTrackingAction>\n" + s + "\n</createOrUpdateConsolidatedTrackingAction>\n</actions>"
	}
	for _, c := range []struct{ file, want string }{
		// The form of the file.
		{"", "line 1: the file holds no element"},
		{"timeZone: UTC", "line 1: text stands before the root element"},
		{within("") + "\nrest", "line 6: text stands behind the root element <actions>"},
		{within("") + "\n<more/>", "line 6: <more> stands behind the root element <actions>"},
		{within("<options>"), "the file cannot be read: element <options> closed by </createOrUpdateConsolidatedTrackingAction>"},
		{"<actions>\n<a>", "line 2: within <a> the file cannot be read: unexpected EOF"},
		{within("<options>\n<timeZone>&zone;</timeZone></options>"), "line 4: within <timeZone> the file cannot be read: invalid character entity &zone;"},
		{"<!DOCTYPE actions [<!ENTITY z \"UTC\">]>\n" + within(""), "line 1: <!DOCTYPE>: a document type is not read"},
		{within("<!ELEMENT x>"), "line 3: <!ELEMENT>"},
		{"<?xml version=\"1.0\" encoding=\"UTF-16\"?>" + within(""), "line 1: the file cannot be read: the encoding UTF-16 is not read: save the file as UTF-8"},
		{"<?xml version=\"1.0\" encoding=\"windows-1252\"?>" + within("\x81"), "byte 0x81 is no character of windows-1252"},
		{within("\xe9"), "invalid UTF-8"},
		{strings.Repeat("<a>", 33), "line 1: <a> is nested more than 32 deep"},
		{strings.Repeat(" ", 1<<20+1), "the file has 1048577 bytes: 1048576 are read at most"},
		// The action.
		{"<import-config>\n<actions/></import-config>", "line 1: <import-config> holds no action <createOrUpdateConsolidatedTrackingAction>"},
		{"<actions><createOrUpdateInterventionAction/></actions>", "holds no action <createOrUpdateConsolidatedTrackingAction>"},
		{"<a>\n<createOrUpdateConsolidatedTrackingAction/>\n<createOrUpdateConsolidatedTrackingAction/></a>", "line 3: <createOrUpdateConsolidatedTrackingAction> is there twice, first on line 2: keep one"},
		{within("<columns/>"), "line 3: <columns> is not known in <createOrUpdateConsolidatedTrackingAction>: <options>, <parameters> and <fields> are"},
		{within("<options/>\n<options/>"), "line 4: <options> is in <createOrUpdateConsolidatedTrackingAction> twice, first on line 3: keep one"},
		{within("text"), "line 2: <createOrUpdateConsolidatedTrackingAction> holds the text [text], which is not known"},
		{within("<options version='2'/>"), "line 3: <options> has the attribute version, which is not known"},
		{within("<options>\ntext</options>"), "line 3: <options> holds the text [text]"},
		// Options and parameters.
		{within("<options>\n<colour>red</colour></options>"), "line 4: <colour> is not known in <options> of the action tracking"},
		{within("<options>\n<interventionStatus/></options>"), "line 4: <interventionStatus> is not known in <options>"},
		{within("<options>\n<fields/></options>"), "line 4: <fields> is not known in <options>"},
		{within("<options><timeZone>UTC</timeZone>\n<timeZone>UTC</timeZone></options>"), "line 4: <timeZone> is in <options> twice, first on line 3: keep one"},
		{within("<options><timeZone>UTC</timeZone></options>\n<parameters><timeZone>UTC</timeZone></parameters>"), "line 4: <timeZone> gives timeZone twice, first on line 3: keep one"},
		{within("<options><timeZone><a/></timeZone></options>"), "line 3: <a> is not known in <timeZone>"},
		{within("<options><timeZone zone='UTC'/></options>"), "line 3: <timeZone> has the attribute zone"},
		{within("<parameters><trackingStatus>c</trackingStatus></parameters>"), "line 3: <trackingStatus> holds the text [c]"},
		{within("<parameters><trackingStatus>\n<done>c</done></trackingStatus></parameters>"), "line 4: <done> is no status: <notAttempted>, <incomplete>, <completed>, <passed>, <failed>, <browsed> are"},
		{within("<parameters><trackingStatus><passed>c</passed>\n<passed>d</passed></trackingStatus></parameters>"), "line 4: <passed> is in <trackingStatus> twice, first on line 3: keep one"},
		// Fields.
		{within("<fields>\n<progress/></fields>"), "line 4: <progress> names [progress], which is no column of the action tracking"},
		{within("<fields><score/>\n<score/></fields>"), "line 4: <score> names [score] twice: keep one"},
		{within("<fields><score/>\n<field>score</field></fields>"), "line 4: <field> names [score] twice: keep one"},
		{within("<fields>\n<field/></fields>"), "line 4: <field> names [], which is no column"},
		{within("<fields>\n<score>yes</score></fields>"), "line 4: <score> holds the text [yes]"},
		{within("<fields><score><mandatory>maybe</mandatory></score></fields>"), "line 3: <mandatory> says [maybe]: write yes or no"},
		{within("<fields><score><mandatory/></score></fields>"), "line 3: <mandatory> says []: write yes or no"},
		{within("<fields><score><mandatory>yes</mandatory>\n<mandatory>yes</mandatory></score></fields>"), "line 4: <mandatory> is there twice: keep one"},
		{within("<fields><score>\n<completed>c</completed></score></fields>"), "line 4: <completed> is not known in the field [score]: <mandatory> is"},
		{within("<fields><trackingStatus><passed>c</passed></trackingStatus></fields>\n<parameters><trackingStatus><passed>c</passed></trackingStatus></parameters>"), "line 4: <trackingStatus> gives trackingStatus twice, first on line 3: keep one"},
	} {
		t.Run(c.want, func(t *testing.T) {
			settings, err := ParseXML(Tracking, []byte(c.file))
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, %v", settings, err)
			}
			if err != nil && strings.Contains(err.Error(), "\n") {
				t.Errorf("more than one fault: %v", err)
			}
		})
	}
	if _, err := ParseXML("enrolment", []byte(within(""))); err == nil {
		t.Error("an unknown action is read")
	}
	_, err := ParseXML(Tracking, []byte(within("<options><a/><b/></options>\n<fields><c/></fields>\n<fields/>")))
	if err == nil || strings.Count(err.Error(), "\n") != 3 {
		t.Errorf("not every fault: %v", err)
	}
}

func FuzzXML(f *testing.F) {
	f.Add(vendorExample)
	f.Add(`<a><action name="createOrUpdateInterventionAction"><fields><field name="interventionStatus"><active>x</active></field></fields></action></a>`)
	f.Add("<?xml version='1.0' encoding='windows-1252'?><createOrUpdateInterventionAction><parameters><ignoredColumns>\xe9,\x80</ignoredColumns></parameters></createOrUpdateInterventionAction>")
	f.Add("<!DOCTYPE a><a/>")
	f.Fuzz(func(t *testing.T, file string) {
		for _, action := range []Action{Tracking, Intervention} {
			settings, err := ParseXML(action, []byte(file))
			if err != nil {
				for line := range strings.SplitSeq(err.Error(), "\n") {
					if !strings.HasPrefix(line, "line ") && !strings.HasPrefix(line, "the file has ") {
						t.Fatalf("no line in %q", err)
					}
				}
				continue
			}
			if again, err := ParseXML(action, []byte(file)); err != nil || !reflect.DeepEqual(again, settings) {
				t.Fatalf("%v, then %v", settings, again)
			}
			// What the reader lets through, Compile knows by name: it may only find values wrong.
			known, names := settingsOf(action), map[string]bool{}
			for _, s := range settings {
				if known[s.Name] == nil || names[s.Name] || s.Line < 1 || s.Text != "" && s.Words != nil {
					t.Fatalf("%+v", s)
				}
				names[s.Name] = true
			}
			r, err := Compile(action, settings)
			if (r == nil) == (err == nil) {
				t.Fatal(r, err)
			}
		}
	})
}
