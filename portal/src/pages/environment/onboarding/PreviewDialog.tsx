import { Button, Dialog, DialogActions, DialogBody, DialogContent, DialogSurface, DialogTitle, makeStyles, Text, tokens } from '@fluentui/react-components'
import { ServerRegular } from '@fluentui/react-icons/svg/server'
import { useTranslation } from 'react-i18next'
import { previewOnboarding, type PreviewLine } from '../../../api/machines'
import { useRows } from '../../../api/rows'
import { useFormat, useName } from '../../../i18n/names'
import { Status, type Tone } from '../../../ui/marks'
import { RowTable } from '../../../ui/PagedTable'
import { useReason } from '../../../ui/reasons'
import { Empty } from '../../../ui/states'
import type { Column } from '../../../ui/Table'

const useStyles = makeStyles({
  surface: { maxWidth: '900px', width: 'calc(100vw - 48px)' },
  content: { display: 'flex', flexDirection: 'column', gap: tokens.spacingVerticalM, height: 'min(560px, 60vh)' },
})

const tones: Record<string, Tone> = { install: 'busy', upgrade: 'busy', repair: 'busy', verify: 'busy', nothing: 'good', skip: 'neutral' }

type Line = PreviewLine & { id: string }

/** What would be done with which machine; nothing is changed. */
export function PreviewDialog({ environment, close }: { environment: string; close: () => void }) {
  const styles = useStyles()
  const { t } = useTranslation()
  const name = useName()
  const format = useFormat()
  const words = useReason()
  const rows = useRows<Line>(`preview ${environment}`, async (page, signal) => {
    const list = await previewOnboarding(environment, page, signal)
    return { ...list, items: list.items.map((line) => ({ ...line, id: line.machine.id })) }
  }, ['machine', 'plan', 'onboarding'])
  const why = (line: Line) => (line.reason ? words(line.reason).text : '')
  const columns: Column<Line>[] = [
    { id: 'name', header: t('machine.name'), min: 160, grow: 2, cell: (p) => <span title={p.machine.name}>{p.machine.name}</span> },
    { id: 'would', header: t('onboarding.would'), min: 190, grow: 1, cell: (p) => <Status tone={tones[p.would] ?? 'neutral'}>{name('would', p.would)}</Status> },
    { id: 'reason', header: t('machine.reason'), min: 200, grow: 3, cell: (p) => <span title={why(p)}>{why(p)}</span> },
  ]
  return (
    <Dialog open onOpenChange={(_, d) => !d.open && close()}>
      <DialogSurface className={styles.surface} data-testid="preview-dialog">
        <DialogBody>
          <DialogTitle>{t('onboarding.previewTitle')}</DialogTitle>
          <DialogContent className={styles.content}>
            <Text>{t('onboarding.previewText', { count: rows.total, number: format.number(rows.total) })}</Text>
            <RowTable
              rows={rows} label={t('onboarding.previewTitle')} columns={columns} rowTestid="preview-row"
              empty={<Empty icon={<ServerRegular />} title={t('machine.none')}>{t('machine.noneText')}</Empty>}
            />
          </DialogContent>
          <DialogActions><Button appearance="primary" onClick={close} data-testid="preview-close">{t('action.close')}</Button></DialogActions>
        </DialogBody>
      </DialogSurface>
    </Dialog>
  )
}
