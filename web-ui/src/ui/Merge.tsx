import { yaml } from '@codemirror/lang-yaml';
import { defaultHighlightStyle, syntaxHighlighting } from '@codemirror/language';
import { unifiedMergeView } from '@codemirror/merge';
import { EditorState } from '@codemirror/state';
import { EditorView, lineNumbers } from '@codemirror/view';
import { useEffect, useRef } from 'react';
import { nonce } from './nonce';

/** What differs between two texts. */
export default function Merge({ before, after }: { before: string; after: string }) {
  const box = useRef<HTMLDivElement>(null);
  useEffect(() => {
    if (!box.current) return;
    const view = new EditorView({
      parent: box.current,
      state: EditorState.create({
        doc: after,
        extensions: [
          EditorView.cspNonce.of(nonce()),
          EditorView.contentAttributes.of({ 'aria-label': 'Difference' }),
          EditorState.readOnly.of(true),
          EditorView.editable.of(false),
          lineNumbers(),
          syntaxHighlighting(defaultHighlightStyle, { fallback: true }),
          yaml(),
          unifiedMergeView({
            original: before,
            mergeControls: false,
            collapseUnchanged: { margin: 3, minSize: 6 },
          }),
          EditorView.theme({
            '&': { fontSize: '13px', border: '1px solid #868e9660', borderRadius: '4px' },
            '.cm-gutters': { backgroundColor: 'transparent', color: 'var(--mantine-color-dimmed)', border: 'none' },
            '.cm-scroller': { fontFamily: 'ui-monospace, monospace', maxHeight: '60vh' },
          }),
        ],
      }),
    });
    // Who has no mouse scrolls by keys.
    view.scrollDOM.tabIndex = 0;
    return () => view.destroy();
  }, [before, after]);
  return <div ref={box} data-testid="difference" />;
}
