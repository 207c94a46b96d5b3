// The selector with completion: names of labels after `{` and `,`, values after an operator and a quote, both from what is stored in the
// window and meets the selector's other conditions. A combobox as ARIA has it: arrows choose, Enter or Tab takes, Escape closes; Enter with
// nothing chosen asks.

import { useEffect, useId, useRef, useState } from "react";
import { flushSync } from "react-dom";

import type { NamesAnswer, ValuesAnswer } from "../api/answers";
import { ask } from "../api/client";
import { START_DEFAULT } from "../api/selection";
import { besides, contextAt, completed, type Context } from "./completion";

/** How many suggestions are shown at most. */
const SHOWN_MAX = 50;

export interface SelectorInputProps {
  value: string;
  start: string;
  end: string;
  label: string;
  onChange: (query: string) => void;
}

export function SelectorInput({ value, start, end, label, onChange }: SelectorInputProps) {
  const [text, setText] = useState(value);
  const [seen, setSeen] = useState(value);
  const [context, setContext] = useState<Context>();
  const [answers, setAnswers] = useState<{ key: string; words: string[] }>();
  const [chosen, setChosen] = useState(-1);
  const input = useRef<HTMLInputElement>(null);
  const list = useId();
  // The link changed by other ways than this field: it shows what the link says.
  if (seen !== value) {
    setSeen(value);
    setText(value);
  }

  const path = context === undefined ? undefined : context.is === "name" ? "" : `/${encodeURIComponent(context.label)}/values`;
  const others = context === undefined ? "" : besides(text, context);
  const key = path === undefined ? undefined : `${path} ${others}`;
  useEffect(() => {
    if (key === undefined || path === undefined) return;
    const gone = new AbortController();
    const window = { start: start === "" ? START_DEFAULT : start, end };
    ask<Partial<NamesAnswer & ValuesAnswer>>(`/api/v1/labels${path}`, { ...window, query: others }, { signal: gone.signal }).then(
      (answer) => setAnswers({ key, words: answer.values ?? answer.names ?? [] }),
      // Without suggestions the field still works.
      () => setAnswers({ key, words: [] }),
    );
    return () => gone.abort();
  }, [key, path, others, start, end]);

  const typed = context?.typed.toLowerCase() ?? "";
  const words = context === undefined || answers?.key !== key ? [] : (answers?.words ?? []);
  const shown = words.filter((word) => word.toLowerCase().includes(typed) && word !== context?.typed).slice(0, SHOWN_MAX);
  const isOpen = shown.length > 0;

  const look = (): void => {
    const field = input.current;
    if (field === null) return;
    setContext(contextAt(field.value, field.selectionStart ?? field.value.length));
    setChosen(-1);
  };
  const take = (word: string): void => {
    if (context === undefined) return;
    const next = completed(text, context, word);
    // At once: a frame later a fast writer has gone on, and the caret would jump back before what was written since.
    flushSync(() => {
      setText(next.text);
      setContext(undefined);
    });
    input.current?.setSelectionRange(next.caret, next.caret);
    look();
  };
  const submit = (): void => {
    setContext(undefined);
    setSeen(text.trim());
    onChange(text.trim());
  };

  return (
    <div className="selector">
      <input
        ref={input}
        type="text"
        value={text}
        placeholder='{service="checkout"}: everything when empty'
        spellCheck={false}
        autoComplete="off"
        role="combobox"
        aria-label={label}
        aria-autocomplete="list"
        aria-expanded={isOpen}
        aria-controls={list}
        aria-activedescendant={chosen >= 0 ? `${list}-${chosen}` : undefined}
        data-shortcut="selector"
        onChange={(event) => {
          setText(event.target.value);
          look();
        }}
        onClick={look}
        onFocus={look}
        onBlur={() => {
          setContext(undefined);
          if (text.trim() !== value) submit();
        }}
        onKeyDown={(event) => {
          if (isOpen && (event.key === "ArrowDown" || event.key === "ArrowUp")) {
            event.preventDefault();
            const step = event.key === "ArrowDown" ? 1 : -1;
            setChosen((chosen + step + shown.length) % shown.length);
          } else if (isOpen && chosen >= 0 && (event.key === "Enter" || event.key === "Tab")) {
            event.preventDefault();
            take(shown[chosen]);
          } else if (event.key === "Enter") submit();
          else if (event.key === "Escape" && isOpen) {
            event.stopPropagation();
            setContext(undefined);
          } else if (event.key === "ArrowLeft" || event.key === "ArrowRight") requestAnimationFrame(look);
        }}
      />
      <ul className="suggestions" id={list} role="listbox" aria-label="Suggestions" hidden={!isOpen}>
        {shown.map((word, i) => (
          <li
            key={word}
            id={`${list}-${i}`}
            role="option"
            aria-selected={i === chosen}
            onPointerDown={(event) => {
              // Keeps the focus in the field.
              event.preventDefault();
              take(word);
            }}
          >
            {word}
          </li>
        ))}
      </ul>
    </div>
  );
}
