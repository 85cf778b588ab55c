// What is asked before many machines, or one, become something else.
import {
  Button, Dialog, DialogActions, DialogBody, DialogContent, DialogSurface, DialogTitle, Field, makeStyles, MessageBar, MessageBarBody, Radio, RadioGroup, Text, Textarea, tokens,
} from '@fluentui/react-components'
import { useState } from 'react'
import { useTranslation } from 'react-i18next'
import type { PlanChoice } from '../../../api/machines'
import { useFormat, useName } from '../../../i18n/names'

const useStyles = makeStyles({
  content: { display: 'flex', flexDirection: 'column', gap: tokens.spacingVerticalM },
  hint: { color: tokens.colorNeutralForeground3 },
})

export const planChoices: PlanChoice[] = ['inherit', 'P2', 'P1', 'off']

export function PlanDialog({ count, save, close }: { count: number; save: (plan: PlanChoice) => void; close: () => void }) {
  const styles = useStyles()
  const { t } = useTranslation()
  const name = useName()
  const format = useFormat()
  const [plan, setPlan] = useState<PlanChoice>('inherit')
  return (
    <Dialog open onOpenChange={(_, d) => !d.open && close()}>
      <DialogSurface data-testid="plan-many">
        <DialogBody>
          <DialogTitle>{t('machine.planOf', { count, number: format.number(count) })}</DialogTitle>
          <DialogContent className={styles.content}>
            <RadioGroup value={plan} onChange={(_, d) => setPlan(d.value as PlanChoice)} aria-label={t('machine.plan')}>
              {planChoices.map((p) => <Radio key={p} value={p} label={name('planSetting', p)} data-testid={`plan-many-${p}`} />)}
            </RadioGroup>
            {plan === 'off' && <MessageBar intent="warning" layout="multiline"><MessageBarBody>{t('machine.planOffText')}</MessageBarBody></MessageBar>}
          </DialogContent>
          <DialogActions>
            <Button appearance="primary" onClick={() => save(plan)} data-testid="plan-many-save">{t('action.save')}</Button>
            <Button onClick={close}>{t('action.cancel')}</Button>
          </DialogActions>
        </DialogBody>
      </DialogSurface>
    </Dialog>
  )
}

/** How many names are said. */
const named = 5

export function OffboardDialog({ names, offboard, close }: { names: string[]; offboard: (reason: string) => void; close: () => void }) {
  const styles = useStyles()
  const { t } = useTranslation()
  const format = useFormat()
  const [reason, setReason] = useState('')
  const rest = names.length - named
  const list = rest > 0 ? [...names.slice(0, named), t('machine.more', { count: rest, number: format.number(rest) })] : names
  return (
    <Dialog open modalType="alert" onOpenChange={(_, d) => !d.open && close()}>
      <DialogSurface data-testid="offboard-dialog">
        <DialogBody>
          <DialogTitle>{names.length === 1 ? t('machine.offboardOne', { name: names[0] }) : t('machine.offboardMany', { count: names.length, number: format.number(names.length) })}</DialogTitle>
          <DialogContent className={styles.content}>
            {names.length > 1 && <Text>{format.list(list)}</Text>}
            <Text>{t('machine.offboardText')}</Text>
            <Field label={t('machine.why')} hint={t('machine.whyHint')} required>
              <Textarea value={reason} maxLength={500} autoFocus onChange={(_, d) => setReason(d.value)} textarea={{ 'data-testid': 'offboard-reason' } as object} />
            </Field>
          </DialogContent>
          <DialogActions>
            <Button appearance="primary" disabledFocusable={reason.trim() === ''} onClick={() => reason.trim() !== '' && offboard(reason.trim())} data-testid="offboard-confirm">{t('machine.offboardNow')}</Button>
            <Button onClick={close}>{t('action.cancel')}</Button>
          </DialogActions>
        </DialogBody>
      </DialogSurface>
    </Dialog>
  )
}
