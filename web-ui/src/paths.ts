/** The addresses of the console, in one place. */
export const paths = {
  overview: '/',
  listeners: '/listeners',
  listener: (name: string) => `/listeners/${encodeURIComponent(name)}`,
  pools: '/pools',
  pool: (name: string) => `/pools/${encodeURIComponent(name)}`,
  lists: '/lists',
  list: (name: string) => `/lists/${encodeURIComponent(name)}`,
  map: (name: string) => `/maps/${encodeURIComponent(name)}`,
  nodes: '/nodes',
  configuration: '/configuration',
  history: '/history',
  revision: (number: number) => `/history/${number}`,
  tokens: '/tokens',
};
