import { createTheme, DEFAULT_THEME, type MantineColorsTuple } from '@mantine/core';

/** The darkest shade of a colour, dark enough for small text on white (WCAG AA: 4.5 to 1). */
function withDarkest(name: string, darkest: string): MantineColorsTuple {
  return [...(DEFAULT_THEME.colors[name] ?? []).slice(0, 9), darkest] as unknown as MantineColorsTuple;
}

export const theme = createTheme({
  fontFamily: 'system-ui, sans-serif',
  defaultRadius: 'sm',
  primaryShade: { light: 9, dark: 7 },
  colors: {
    green: withDarkest('green', '#237032'),
    orange: withDarkest('orange', '#b03a08'),
    yellow: withDarkest('yellow', '#8a5a00'),
    red: withDarkest('red', '#c92a2a'),
  },
});
