// One event in full, at the side of the page.
import { Button, DrawerBody, DrawerHeader, DrawerHeaderTitle, makeStyles, OverlayDrawer, Subtitle2, Text, tokens } from '@fluentui/react-components'
import { DismissRegular } from '@fluentui/react-icons/svg/dismiss'
import type { ReactNode } from 'react'
import { useTranslation } from 'react-i18next'
import type { DeviceEvent, FileInfo } from '../api/types'
import { useEventText } from '../i18n/eventText'
import { useFormat, useName, type Family } from '../i18n/names'
import { Facts } from './Facts'
import { Moment } from './marks'
import { ProcessFacts } from './ProcessFacts'

const useStyles = makeStyles({
  body: { display: 'flex', flexDirection: 'column', gap: tokens.spacingVerticalL, paddingBottom: tokens.spacingVerticalXXL },
  part: { display: 'flex', flexDirection: 'column', gap: tokens.spacingVerticalS },
  heading: { margin: 0 },
  raw: {
    fontFamily: tokens.fontFamilyMonospace, fontSize: tokens.fontSizeBase200, lineHeight: tokens.lineHeightBase200, whiteSpace: 'pre-wrap', overflowWrap: 'anywhere',
    margin: `${tokens.spacingVerticalS} 0 0`, padding: tokens.spacingHorizontalM, backgroundColor: tokens.colorNeutralBackground3, borderRadius: tokens.borderRadiusMedium,
  },
  summary: { cursor: 'pointer', fontWeight: tokens.fontWeightSemibold },
})

function Part({ title, children }: { title: string; children: ReactNode }) {
  const styles = useStyles()
  return (
    <section className={styles.part}>
      <Subtitle2 as="h3" className={styles.heading}>{title}</Subtitle2>
      {children}
    </section>
  )
}

/** The digest of a file, in the API's older and newer shape. */
export function sha256Of(file: FileInfo | undefined | null): string {
  return file?.sha256 || file?.hashes?.sha256 || ''
}

/** Values that have names in the reader's language, by their field. */
const valueNames: Record<string, Family> = { action: 'threatState', direction: 'direction', sensitive: 'sensitivity' }

/** The fields of a part of an event; one that nobody named is shown by its field name. */
function useFieldFacts() {
  const name = useName()
  return (fields: Record<string, unknown> | undefined, without: string[]) => Object.entries(fields ?? {})
    .filter(([key, value]) => !without.includes(key) && ['string', 'number', 'boolean'].includes(typeof value) && value !== '')
    .map(([key, value]) => ({ label: name('eventField', key), value: valueNames[key] ? name(valueNames[key], String(value)) : String(value) }))
}

export function EventPanel({ event, close }: { event: DeviceEvent | undefined; close: () => void }) {
  const styles = useStyles()
  const { t } = useTranslation()
  const name = useName()
  const format = useFormat()
  const text = useEventText()
  const fieldFacts = useFieldFacts()
  return (
    <OverlayDrawer position="end" size="medium" open={event !== undefined} onOpenChange={(_, d) => !d.open && close()} data-testid="event-panel" aria-label={event && name('action', event.action)}>
      {event && (
        <>
          <DrawerHeader>
            <DrawerHeaderTitle action={<Button appearance="subtle" icon={<DismissRegular />} aria-label={t('action.close')} onClick={close} data-testid="event-close" />}>
              {name('action', event.action)}
            </DrawerHeaderTitle>
          </DrawerHeader>
          <DrawerBody tabIndex={0}>
            <div className={styles.body}>
              <Text>{text(event)}</Text>
              <Facts facts={[
                { label: t('event.time'), value: <Moment time={event.time} /> },
                { label: t('event.group'), value: name('source', event.source) },
                { label: t('event.table'), value: event.table },
              ]}
              />
              {event.process && <Part title={t('event.process')}><ProcessFacts process={event.process} /></Part>}
              {event.initiator && <Part title={t('event.initiator')}><ProcessFacts process={event.initiator} /></Part>}
              {event.file && (
                <Part title={t('event.file')}>
                  <Facts facts={[
                    { label: t('file.path'), value: event.file.path },
                    { label: t('file.size'), value: event.file.size === undefined ? undefined : t('file.bytes', { count: event.file.size, number: format.number(event.file.size) }) },
                    { label: t('file.sha256'), value: sha256Of(event.file) },
                    ...fieldFacts(event.file, ['path', 'name', 'size', 'sha256']),
                  ]}
                  />
                </Part>
              )}
              {event.network && <Part title={t('event.network')}><Facts facts={fieldFacts(event.network, [])} /></Part>}
              {event.threat && <Part title={t('event.threat')}><Facts facts={fieldFacts(event.threat, [])} /></Part>}
              {event.fields && Object.keys(event.fields).length > 0 && <Part title={t('event.more')}><Facts facts={fieldFacts(event.fields, [])} /></Part>}
              <details>
                <summary className={styles.summary}>{t('event.raw')}</summary>
                <pre className={styles.raw} data-testid="event-raw">{JSON.stringify(event, null, 2)}</pre>
              </details>
            </div>
          </DrawerBody>
        </>
      )}
    </OverlayDrawer>
  )
}
