import { Table, Text, TextInput, UnstyledButton } from '@mantine/core';
import { useHotkeys } from '@mantine/hooks';
import { type ReactNode, useRef } from 'react';
import { useQueryParameter } from './useQueryParameter';

export interface Column<T> {
  title: string;
  cell: (row: T) => ReactNode;
  /** What the column is sorted by; without it it is not. */
  by?: (row: T) => string | number;
  right?: boolean;
}

interface Props<T> {
  rows: T[];
  columns: Column<T>[];
  keyOf: (row: T) => string;
  /** Text that the filter looks in. */
  textOf: (row: T) => string;
  empty: ReactNode;
  label: string;
}

/** A table with a filter (key `/`) and an order, both in the address. */
export function DataTable<T>({ rows, columns, keyOf, textOf, empty, label }: Props<T>) {
  const [filter, setFilter] = useQueryParameter('filter');
  const [sort, setSort] = useQueryParameter('sort');
  const input = useRef<HTMLInputElement>(null);
  useHotkeys([['/', () => input.current?.focus()]]);

  const shown = ordered(
    rows.filter((row) => textOf(row).toLowerCase().includes(filter.toLowerCase())),
    columns,
    sort,
  );
  const next = (title: string) => (sort === title ? `-${title}` : sort === `-${title}` ? '' : title);
  return (
    <>
      <TextInput
        ref={input}
        placeholder="Filter  /"
        aria-label={`Filter ${label}`}
        value={filter}
        onChange={(event) => setFilter(event.currentTarget.value)}
        maw={320}
        size="xs"
      />
      <Table.ScrollContainer minWidth={600} scrollAreaProps={{ viewportProps: { tabIndex: 0 } }}>
        <Table highlightOnHover verticalSpacing={6} aria-label={label}>
          <Table.Thead>
            <Table.Tr>
              {columns.map(({ title, by, right }) => (
                <Table.Th
                  key={title}
                  ta={right ? 'right' : undefined}
                  aria-sort={sort === title ? 'ascending' : sort === `-${title}` ? 'descending' : undefined}
                >
                  {by ? (
                    <UnstyledButton fz="sm" fw={700} onClick={() => setSort(next(title))}>
                      {title}
                      {sort === title ? ' ↑' : sort === `-${title}` ? ' ↓' : ''}
                    </UnstyledButton>
                  ) : (
                    title
                  )}
                </Table.Th>
              ))}
            </Table.Tr>
          </Table.Thead>
          <Table.Tbody>
            {shown.map((row) => (
              <Table.Tr key={keyOf(row)}>
                {columns.map(({ title, cell, right }) => (
                  <Table.Td key={title} ta={right ? 'right' : undefined}>
                    {cell(row)}
                  </Table.Td>
                ))}
              </Table.Tr>
            ))}
          </Table.Tbody>
        </Table>
      </Table.ScrollContainer>
      {shown.length === 0 && <Text c="dimmed">{rows.length === 0 ? empty : 'Nothing matches the filter.'}</Text>}
    </>
  );
}

function ordered<T>(rows: T[], columns: Column<T>[], sort: string): T[] {
  const by = columns.find((column) => column.title === sort.replace(/^-/, ''))?.by;
  if (!by) return rows;
  const way = sort.startsWith('-') ? -1 : 1;
  const compare = (a: string | number, b: string | number) =>
    typeof a === 'number' && typeof b === 'number' ? a - b : String(a).localeCompare(String(b));
  return [...rows].sort((a, b) => way * compare(by(a), by(b)));
}
