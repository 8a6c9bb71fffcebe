import { defaultKeymap, history, historyKeymap, indentWithTab } from '@codemirror/commands';
import { yaml } from '@codemirror/lang-yaml';
import { bracketMatching, defaultHighlightStyle, indentOnInput, syntaxHighlighting } from '@codemirror/language';
import { type Diagnostic, lintGutter, setDiagnostics } from '@codemirror/lint';
import { searchKeymap } from '@codemirror/search';
import { EditorState } from '@codemirror/state';
import { drawSelection, EditorView, highlightActiveLine, keymap, lineNumbers } from '@codemirror/view';
import { useEffect, useRef } from 'react';
import type { Violation } from '../api/types';
import { nonce } from './nonce';

interface Props {
  value: string;
  onChange?: (value: string) => void;
  errors?: Violation[];
  warnings?: Violation[];
  label: string;
  readOnly?: boolean;
}

const LOOK = EditorView.theme({
  '&': { fontSize: '13px', border: '1px solid #868e9660', borderRadius: '4px' },
  '&.cm-focused': { outline: '2px solid #1c7ed6' },
  '.cm-scroller': { fontFamily: 'ui-monospace, monospace', minHeight: '320px', maxHeight: '70vh' },
  '.cm-gutters': { backgroundColor: 'transparent', color: 'var(--mantine-color-dimmed)', border: 'none' },
});

/** A YAML document with marks where it is wrong. */
export default function Editor({ value, onChange, errors = [], warnings = [], label, readOnly = false }: Props) {
  const box = useRef<HTMLDivElement>(null);
  const view = useRef<EditorView | null>(null);
  const change = useRef(onChange);
  change.current = onChange;

  useEffect(() => {
    if (!box.current) return;
    const made = new EditorView({
      parent: box.current,
      state: EditorState.create({
        doc: value,
        extensions: [
          EditorView.cspNonce.of(nonce()),
          EditorView.contentAttributes.of({ 'aria-label': label }),
          EditorState.readOnly.of(readOnly),
          lineNumbers(),
          history(),
          drawSelection(),
          indentOnInput(),
          bracketMatching(),
          highlightActiveLine(),
          syntaxHighlighting(defaultHighlightStyle, { fallback: true }),
          yaml(),
          lintGutter(),
          keymap.of([...defaultKeymap, ...historyKeymap, ...searchKeymap, indentWithTab]),
          LOOK,
          EditorView.updateListener.of((update) => {
            if (update.docChanged) change.current?.(update.state.doc.toString());
          }),
        ],
      }),
    });
    // Who has no mouse scrolls by keys.
    made.scrollDOM.tabIndex = 0;
    view.current = made;
    return () => made.destroy();
    // A new text from outside comes through the effect below; the editor itself stays.
    // eslint-disable-next-line react-hooks/exhaustive-deps
  }, [label, readOnly]);

  useEffect(() => {
    const editor = view.current;
    if (!editor || editor.state.doc.toString() === value) return;
    editor.dispatch({ changes: { from: 0, to: editor.state.doc.length, insert: value } });
  }, [value]);

  useEffect(() => {
    const editor = view.current;
    if (!editor) return;
    const marks = [
      ...errors.map((error) => mark(editor, error, 'error')),
      ...warnings.map((warning) => mark(editor, warning, 'warning')),
    ];
    editor.dispatch(setDiagnostics(editor.state, marks));
  }, [errors, warnings, value]);

  return <div ref={box} />;
}

function mark(editor: EditorView, violation: Violation, severity: 'error' | 'warning'): Diagnostic {
  const { doc } = editor.state;
  const line = doc.line(Math.min(Math.max(violation.line ?? 1, 1), doc.lines));
  const from = Math.min(line.from + Math.max((violation.column ?? 1) - 1, 0), line.to);
  const message = violation.hint ? `${violation.detail}\n${violation.hint}` : violation.detail;
  return { from, to: line.to, severity, message };
}
